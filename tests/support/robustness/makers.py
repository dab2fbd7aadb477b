"""The maker of every parameter, by its name, or by those of function and parameter."""

import math
from collections.abc import Callable
from inspect import signature
from typing import Any

from svdrot import averaging, losses, nn, registration, representations
from svdrot.conventions.frames import AXES
from svdrot.registration.pairs import robust
from svdrot.representations import TABLE as CONVERTED
from svdrot.schedules import SCHEDULES

from .arrays import clouds, matrices, rotations, vectors
from .draws import FLOATS, Draw
from .values import (
    a_few_clouds,
    axis,
    conventional,
    converted,
    covariance_matrix,
    edge_weights,
    edges,
    essential,
    factor,
    features,
    fragments,
    generator,
    group,
    homogeneous,
    icp_distance,
    icp_extra,
    icp_points,
    icp_scales,
    image_points,
    instants,
    knots,
    larger_scale,
    loss_pose,
    mask,
    matrix,
    motion,
    motion_axis,
    number,
    one_axis,
    one_cloud,
    one_trajectory,
    pairs_of_points,
    per_item,
    per_point,
    perpendicular_axes,
    points,
    pose,
    pose_knots,
    pose_pairs,
    positive,
    reflection,
    relative,
    rigid,
    rotation,
    rotation_list,
    row,
    scaled_tensor,
    scipy_rotation,
    sequence,
    shape,
    sized,
    stamps,
    surface,
    times,
    trajectory,
    unit_quaternion,
    vector,
    view,
    weights,
)

MAKERS: dict[str, Callable[[Draw], Any]] = {
    **dict.fromkeys(("a", "b", "base", "rotation", "start", "end", "estimate", "truth"), rotation),
    **dict.fromkeys(("quaternion",), vector(4)),
    **dict.fromkeys(("axis_angle", "mrp", "angles", "vector"), vector(3)),
    **dict.fromkeys(("rotation_2vec", "rotation_6d"), vector(6)),
    "rotation_5d": vector(5),
    "rotation_9d": vector(9),
    "symmetric": vector(10),
    "matrix": rotation,
    "value": converted,
    "source": pairs_of_points,
    "target": pairs_of_points,
    "points": points,
    "query": points,
    "weights": per_point(weights),
    "mask": per_point(mask),
    "sequence": sequence,
    "dtype": lambda draw: draw.pick(None, *FLOATS),
    "device": number(None, "cpu"),
    "generator": generator,
    "shape": shape,
    "reflection": reflection,
    "motion": motion,
    **{
        f"svdrot.{f}.axis": motion_axis
        for f in (
            "registration.procrustes",
            "registration.kabsch",
            "registration.umeyama",
            "registration.icp",
            "evaluation.trajectories.align_trajectories",
        )
    },
    "threshold": positive,
    "rotations": rotation_list,
    "average": lambda draw: draw.tensor(rotations(draw), 2, scaled=False),
    "norm": number(*averaging.rotations.NORMS),
    "representation": number(*nn.REPRESENTATIONS),
    "features": lambda draw: draw.tensor(draw.normal(*draw.lead(), 4), 1, scaled=False),
    "svdrot.convert_rotation.source": lambda draw: draw.memo["from"],
    "svdrot.convert_rotation.target": number(*CONVERTED),
    "svdrot.interpolate_rotations.rotations": knots,
    "at": instants,
    "times": times,
    "angle": number(0.0, 0.1, 1.0, 3.0, math.pi),
    "svdrot.random_small_rotation.scale": number(0.1, 1.0, 0.0),
    **{
        f"svdrot.quaternion_{f}.{p}": vector(4)
        for f, p in (("multiply", "a"), ("multiply", "b"), ("slerp", "start"), ("slerp", "end"))
    },
    "point": vector(3),
    **{f"svdrot.{f}.{p}": vector(3) for f in ("angle_between", "rotation_between") for p in ("a", "b")},
    **dict.fromkeys(("eye", "up", "svdrot.look_at.target", "svdrot.swing_twist.axis"), vector(3)),
    "convention": number("opencv", "opengl"),
    "svdrot.wrap_angle.angle": lambda draw: draw.tensor(4 * draw.normal(*draw.lead()), 0),
    "svdrot.circular_mean.angle": lambda draw: draw.tensor(4 * draw.normal(*draw.lead(), draw.count), 1),
    "svdrot.circular_mean.weights": lambda draw: (
        None if draw.chance(0.3) else weights(draw, (*draw.lead(), draw.count))
    ),
    "axes": perpendicular_axes,
    **dict.fromkeys(
        ("svdrot.matrix_to_davenport.order", "svdrot.davenport_to_matrix.order"),
        number("intrinsic", "extrinsic"),
    ),
    "twist": vector(6),
    **dict.fromkeys(("rigid", "svdrot.se3_log.transform"), rigid),
    "place": vector(3),
    "path": number("screw", "split"),
    "svdrot.interpolate_transforms.transforms": pose_knots,
    "transforms": trajectory,
    "svdrot.sim3_exp.twist": vector(7),
    "svdrot.averaging.transform_covariance.average": pose,
    "exponent": lambda draw: draw.pick(0.5, 2, -1.0) if draw.chance(0.4) else scaled_tensor(draw),
    "quaternions": lambda draw: draw.tensor(vectors(draw, 4, *draw.lead(), draw.count), 2),
    "svdrot.quaternion_mean.weights": lambda draw: (
        None if draw.chance(0.3) else weights(draw, (*draw.lead(), draw.count))
    ),
    "share": lambda draw: draw.pick(0.0, 0.3, 1.0, 2) if draw.chance(0.4) else scaled_tensor(draw),
    "svdrot.special_orthogonalize.matrix": matrix(None, 0),
    "damping": number(None, None, 0.0, 0.1),
    "svdrot.projection_gap.matrix": matrix(None, 0),
    "svdrot.orthogonalize.matrix": matrix(),
    "svdrot.is_rotation.tolerance": number(None, 1e-3),
    # polar
    "svdrot.polar.polar.matrix": matrix(None, 0),
    "special": number(False, True),
    "svdrot.polar.newton_schulz.matrix": matrix(),
    # Without a factor for what bfloat16 rounds up, "cans" makes numbers of 1e22 of rounding.
    "schedule": number(*[schedule for name, schedule in SCHEDULES.items() if name != "cans"]),
    "schatten": number(2, 8),
    "svdrot.polar.polar_refinement.matrix": matrix(same=True),
    "svdrot.polar.polar_certificate.matrix": matrix(None, 0, same=True),
    "svdrot.polar.polar_certificate.factor": factor,
    "factor": factor,
    "h": matrix(3, 3),
    "s": matrix(3, 3),
    # schedules
    "kappa": number(1, 2, 5),
    "lower": number(1.0, 0.1, 1e-3, 1e-6),
    "cap": number(0.2, 0.0, 0.4),
    "safety": number(1.0005, 1.0),
    "svdrot.schedules.newton_schulz_schedule.tolerance": number(1e-9, 1e-3),
    "aspect": number(None, 1.0, 2.0, 16.0),
    # losses
    **{f"svdrot.losses.{f}.{p}": loss_pose for f in ("add", "add_symmetric") for p in ("estimate", "truth")},
    "svdrot.losses.laplace_geodesic.scale": scaled_tensor,
    "svdrot.losses.axial.axis": vector(3),
    "undirected": number(False, True),
    "svdrot.losses.raw_9d.matrix": matrix(3, 3),
    "symmetries": group,
    "loss": number(losses.geodesic, losses.chordal, losses.squared_geodesic, losses.squared_chordal),
    "reduction": number("mean", "sum", "none"),
    # conventions
    "svdrot.conventions.from_convention.value": conventional(True),
    "svdrot.conventions.to_convention.value": conventional(False),
    "library": lambda draw: draw.memo["library"],
    "svdrot.conventions.from_convention.representation": lambda draw: draw.memo["from"],
    "svdrot.conventions.to_convention.representation": lambda draw: draw.memo["from"],
    "degrees": number(False),
    **{f"svdrot.conventions.change_of_axes.{end}": number(*AXES) for end in ("source", "target")},
    "svdrot.conventions.from_scipy.rotation": scipy_rotation,
    "svdrot.conventions.from_scipy.dtype": number(*FLOATS),
    "svdrot.conventions.to_scipy.matrix": lambda draw: draw.tensor(
        rotations(draw, draw.count), 2, scaled=False
    ),
    # symmetries
    "order": number(1, 2, 3, 7),
    "axis": axis,
    "second": number(None, (0.3, 0.1, -2.0)),
    **{f"svdrot.symmetries.{g}.dtype": number(*FLOATS) for g in ("tetrahedral", "octahedral", "icosahedral")},
    # optim
    "svdrot.optim.clip_outliers.matrix": matrix(),
    "svdrot.optim.equilibrate.matrix": matrix(),
    "svdrot.optim.singular_gap.matrix": matrix(),
    "quantile": number(0.9, 1.0, 0.01),
    "mode": number("r", "c", "rc"),
    "eps": number(1e-8),
    "relative": number(False, True),
    "rows": number(1, 2, 8, 100),
    "columns": number(1, 2, 8, 100),
    "number": number(1, 2, 8),
    "parameter": lambda draw: draw.tensor(matrices(draw, draw.pick(1, 3, 5), draw.pick(1, 2, 8)), 2),
    "lr": number(1e-3, 0.0),
    "momentum": number(0.95, 0.0),
    # epipolar
    **{
        f"svdrot.epipolar.{f}.matrix": matrix(3, 3)
        for f in (
            *("project_to_essential", "project_to_rank_two"),
            *("algebraic_error", "sampson_error", "symmetric_epipolar_error"),
        )
    },
    "essential": essential,
    **{
        f"svdrot.epipolar.{f}.{p}": image_points
        for f in (
            *("algebraic_error", "sampson_error", "symmetric_epipolar_error", "triangulate"),
            "pose_from_essential",
        )
        for p in ("a", "b")
    },
    **{f"svdrot.epipolar.eight_point.{p}": view for p in ("a", "b")},
    "kind": number("essential", "fundamental"),
    # distributions
    **{
        f"svdrot.distributions.{kind}.{method}.matrix": maker
        for kind, maker in (
            ("MatrixFisher", matrix(3, 3)),
            ("RotationLaplace", matrix(3, 3)),
            ("Bingham", matrix(4, 4)),
        )
        for method in ("log_prob", "validated", "sample", "moments")
    },
    **{
        f"svdrot.distributions.{kind}.{method}.value": maker
        for kind, maker in (
            ("MatrixFisher", rotation),
            ("RotationLaplace", rotation),
            ("Bingham", unit_quaternion),
        )
        for method in ("log_prob", "validated")
    },
    **{
        f"svdrot.distributions.IsotropicGaussian.{method}.scale": scaled_tensor
        for method in ("log_prob", "moments", "rsample", "score")
    },
    # flows
    "svdrot.flows.geodesic_interpolant.time": scaled_tensor,
    **dict.fromkeys(("velocity", "score", "noise"), vector(3)),
    "svdrot.flows.euler_step.step": scaled_tensor,
    **{
        f"svdrot.flows.{f}_step.{p}": maker
        for f in ("probability_flow", "reverse_diffusion")
        for p, maker in (("scale", larger_scale), ("next_scale", scaled_tensor))
    },
    "batch_shape": shape,
    "sample_shape": number((), (2,), (2, 1)),
    "training": number(False, True),
    # registration
    "transform": pose,
    "k": number(1, 2, 5),
    "max_distance": number(None, 0.5, 2.0),
    "svdrot.registration.estimate_normals.k": number(3, 5, 20),
    "radius": number(None, 1.0),
    "viewpoint": lambda draw: draw.pick(None, draw.tensor(draw.normal(3), 1, scaled=False)),
    "voxel": positive,
    "clouds": lambda draw: [draw.tensor(clouds(draw, n, 3), 2) for n in (2, draw.count)],
    "method": number("least_squares", "huber", "geman_mcclure", "gnc_tls", "gnc_geman_mcclure", "ransac"),
    "svdrot.registration.robust_kabsch.method": number(*robust.METHODS, *registration.KERNELS),
    **{
        f"svdrot.{f}.{p}": points
        for f in (
            "registration.robust_kabsch",
            "registration.robust_umeyama",
            "evaluation.poses.inlier_ratio",
        )
        for p in ("source", "target")
    },
    "svdrot.evaluation.poses.chamfer_distance.source": points,
    "svdrot.evaluation.poses.chamfer_distance.target": points,
    "source_surface": surface,
    "target_surface": surface,
    **{
        f"svdrot.registration.{f}.{p}": one_cloud
        for f in ("register", "automatic_voxel", "judge")
        for p in ("source", "target")
    },
    **{f"svdrot.registration.register_batch.{p}": a_few_clouds for p in ("source", "target")},
    "svdrot.registration.fpfh.points": one_cloud,
    "svdrot.registration.voxel_downsample.points": features,
    "attributes": lambda draw: (features(draw),) if draw.chance(0.5) else (),
    "svdrot.registration.match.source": features,
    "svdrot.registration.match.target": features,
    "svdrot.registration.Neighbors.query.points": features,
    "svdrot.registration.Neighbors.query.query": features,
    "svdrot.registration.judge.transform": lambda draw: registration.Transform.identity(),
    "svdrot.registration.judge.start": lambda draw: None,
    "search": number(True, False),
    **{
        f"svdrot.registration.{f}.{p}": make
        for f in ("register", "register_batch")
        for p, make in (
            ("voxel", number(None, 0.5)),
            ("search", number("features", "rotations")),
            ("verdict", number(False, True)),
            ("scale", sized),
            ("axis", one_axis),
        )
    },
    "svdrot.registration.judge.axis": one_axis,
    "svdrot.registration.judge.scale": number(False, True),
    "refine": number(None, "point_to_plane"),
    "svdrot.registration.icp.source": icp_points,
    "svdrot.registration.icp.target": icp_points,
    "svdrot.registration.icp.max_distance": icp_distance,
    "init": lambda draw: None,
    "svdrot.registration.icp.method": number(*registration.METHODS),
    "kernel": number("none", "trimmed", *registration.KERNELS),
    "kernel_parameter": number(None, 0.5),
    "svdrot.registration.icp.max_iterations": number(0, 1, 3),
    "angle_tolerance": number(1e-5),
    "length_tolerance": number(None, 1e-4),
    "scales": icp_scales,
    "source_mask": per_point(mask),
    "target_mask": per_point(mask),
    "source_normals": icp_extra(3),
    "target_normals": icp_extra(3),
    "source_covariances": icp_extra(3, 3),
    "target_covariances": icp_extra(3, 3),
    "neighbors": number(3, 20),
    "progress": lambda draw: None,
    "edges": edges,
    "svdrot.averaging.synchronize_rotations.relative": relative,
    "svdrot.averaging.synchronize_rotations.weights": edge_weights,
    "count": number(None, 7),
    "svdrot.averaging.synchronize_rotations.loss": number("squared", "geman_mcclure"),
    "svdrot.averaging.synchronize_rotations.scale": number(None, 0.1),
    "max_iterations": number(0, 5),
    **{
        f"svdrot.evaluation.poses.{f}.{p}": pose
        for f in (
            *("rotation_error", "translation_error", "add", "point_rmse", "add_symmetric"),
            *("information_rmse",),
        )
        for p in ("estimate", "truth")
    },
    "svdrot.evaluation.poses.pose_recall.estimate": trajectory,
    "svdrot.evaluation.poses.pose_recall.truth": trajectory,
    "svdrot.evaluation.poses.pose_recall.rotation": positive,
    "translation": positive,
    "errors": per_item,
    "thresholds": row(4),
    "maximum": positive,
    "information": covariance_matrix,
    "rmse": per_item,
    "pairs": pose_pairs,
    "svdrot.evaluation.poses.registration_recall.pairs": fragments,
    "distance": positive,
    "ratios": per_item,
    "reference": trajectory,
    **{
        f"svdrot.evaluation.trajectories.{f}.estimate": trajectory
        for f in ("align_trajectories", "align_origins", "absolute_pose_error", "relative_pose_error")
    },
    "svdrot.evaluation.trajectories.kitti_segment_errors.estimate": one_trajectory,
    "svdrot.evaluation.trajectories.kitti_segment_errors.mask": lambda draw: (
        None if draw.chance(0.5) else mask(draw, (draw.count,))
    ),
    **{f"svdrot.evaluation.trajectories.{f}.trajectory": one_trajectory for f in ("path_pairs",)},
    **{f"svdrot.evaluation.trajectories.{f}.trajectory": one_trajectory for f in ("angle_pairs",)},
    "svdrot.evaluation.trajectories.path_lengths.trajectory": one_trajectory,
    "trajectory": trajectory,
    "svdrot.evaluation.trajectories.align_trajectories.scale": number(False, True),
    "svdrot.evaluation.trajectories.align_trajectories.mask": lambda draw: (
        None if draw.chance(0.5) else mask(draw, (*draw.batch, draw.count))
    ),
    "lengths": number((0.5, 2.0), (1.0,)),
    "step": number(1, 10),
    "delta": number(1, 2),
    "svdrot.evaluation.trajectories.frame_pairs.count": number(0, 1, 5),
    "svdrot.evaluation.trajectories.path_pairs.tolerance": number(0.1, 0.5),
    "svdrot.evaluation.trajectories.angle_pairs.tolerance": number(0.1, 0.5),
    "overlapping": number(False, True),
    "first": stamps,
    "svdrot.evaluation.trajectories.associate.second": stamps,
    "svdrot.evaluation.trajectories.associate.max_difference": number(0.01, 1.0),
    "offset": number(0.0, 0.5),
    "then": pose,
    "homogeneous": homogeneous,
    "d": number(1, 2, 3),
    # streaming
    "percentiles": number((5, 95)),
    "accuracies": number((5,)),
    "areas": number((30,)),
    "evaluated": rotation,
}

NUMBERS = {"quaternion": 4, "axis_angle": 3, "mrp": 3, "euler": 3, "rotation_2vec": 6, "rotation_5d": 5}
NUMBERS |= {"rotation_6d": 6, "rotation_9d": 9, "symmetric_10d": 10}


def _of_conversions() -> dict[str, Callable[[Draw], Any]]:
    """For those of the table that are not functions with parameters of their own names."""
    made = {name for name, f in representations.CONVERSIONS.items() if "value" in signature(f).parameters}
    kinds = {name: name.split("_to_")[0] for name in made}
    return {
        f"svdrot.{name}.value": vector(NUMBERS[kind]) if kind in NUMBERS else rotation
        for name, kind in kinds.items()
    }


MAKERS |= _of_conversions()
