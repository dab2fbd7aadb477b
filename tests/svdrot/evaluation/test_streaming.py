"""Streaming statistics are numpy's of all the angles, however the data is cut and shared."""

import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics import MetricCollection

from svdrot import losses, symmetries
from svdrot.evaluation import poses as pose_metrics
from svdrot.evaluation.streaming import (
    AccuracyAtDegrees,
    AreaUnderAccuracy,
    MeanDegrees,
    MedianDegrees,
    PercentileDegrees,
    StdDegrees,
    rotation_metrics,
)
from svdrot.metrics import geodesic_distance
from svdrot.representations import axis_angle_to_matrix
from svdrot.rotations import random_rotation

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``compute`` method of metric:UserWarning"
)  # before update


def rotations(count=200):
    generator = torch.Generator().manual_seed(0)
    truth = random_rotation(count, generator=generator)
    noise = 0.2 * torch.randn(count, 3, generator=generator)
    return truth @ axis_angle_to_matrix(noise), truth


def close(value, expected):
    assert float(value) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("sizes", [(200,), (1, 199), (70, 0, 60, 70)])
def test_statistics_are_those_of_numpy(sizes):
    estimate, truth = rotations()
    metrics = rotation_metrics(percentiles=(0, 2.5, 50, 90, 100), accuracies=(5, 10), areas=(20, 180))
    for pair in zip(estimate.split(sizes), truth.split(sizes), strict=True):
        metrics.update(*pair)
    value = metrics.compute()
    radians = geodesic_distance(estimate, truth)
    degrees = np.degrees(radians.double().numpy())
    close(value["mean_deg"], degrees.mean())
    close(value["median_deg"], np.median(degrees))
    close(value["std_deg"], degrees.std())
    for percent in (0, 2.5, 50, 90, 100):
        close(value[f"p{percent:g}_deg".replace(".", "_")], np.percentile(degrees, percent))
    for limit in (5, 10):
        close(value[f"acc_{limit}_deg"], (degrees < limit).mean())
    for limit in (20, 180):
        close(value[f"auc_{limit}_deg"], pose_metrics.area_under_recall(radians, np.radians(limit)))
    assert len(metrics.compute_groups) == 1  # one list of angles for all


def test_a_threshold_is_not_below_itself():
    """As a fraction of a turn in float32: the rounding of angle and threshold is one."""
    eye = torch.eye(3)
    for degrees in range(1, 180, 7):
        metric = AccuracyAtDegrees(degrees, distance=lambda a, b: a[..., 0, 0])
        exact = torch.deg2rad(torch.tensor(float(degrees), dtype=torch.float64)).float()
        around = torch.stack((exact, exact.nextafter(torch.tensor(0.0)), exact.nextafter(torch.tensor(9.0))))
        metric.update(around[:, None, None] * eye, eye)
        assert float(metric.compute()) == pytest.approx(1 / 3)


def test_misses_are_above_everything():
    estimate, truth = rotations(4)
    estimate[2, 0, 0] = torch.nan
    metrics = rotation_metrics(percentiles=(50, 75, 100), accuracies=(180.1,), areas=(180,))
    metrics.update(estimate, truth)
    value = metrics.compute()
    degrees = torch.rad2deg(geodesic_distance(estimate, truth)).sort().values
    assert value["mean_deg"].isnan() and value["std_deg"].isnan()
    close(value["acc_180_1_deg"], 0.75)
    close(value["median_deg"], degrees[1:3].mean())
    assert value["p75_deg"].isinf() and value["p100_deg"].isinf()
    close(value["auc_180_deg"], (1 - degrees[:3] / 180).sum() / 4)
    estimate[1, 0, 0] = torch.nan  # between two misses
    metrics.reset()
    metrics.update(estimate.repeat(2, 1, 1), truth.repeat(2, 1, 1))
    assert metrics.compute()["p75_deg"].isinf()


def test_nothing_seen_is_nan():
    value = rotation_metrics().compute()
    assert all(number.isnan() for number in value.values())
    metric = MeanDegrees()
    metric.update(*rotations(0))
    assert metric.compute().isnan()


def test_metrics_reset_pickle_and_move():
    estimate, truth = rotations()
    for metric in (
        MeanDegrees(),
        MedianDegrees(),
        StdDegrees(),
        PercentileDegrees(90),
        AccuracyAtDegrees(5),
        AreaUnderAccuracy(30),
    ):
        first = metric(estimate[:50], truth[:50])  # of the batch
        metric(estimate[50:], truth[50:])
        whole = metric.compute()
        copy = pickle.loads(pickle.dumps(metric))
        assert torch.equal(copy.compute(), whole)
        metric.reset()
        metric.update(estimate[:50], truth[:50])
        assert torch.equal(metric.compute(), first)
        double = copy.set_dtype(torch.float64)
        double.reset()
        double.update(estimate.double(), truth.double())
        assert double.compute().dtype == torch.float64
        assert double.compute().item() == pytest.approx(whole.item(), rel=1e-5)


def test_a_distance_may_know_symmetries():
    estimate, truth = rotations()
    group = symmetries.octahedral()
    metric = MeanDegrees(distance=lambda a, b: losses.minimum_over_symmetries(a, b, group))
    metric.update(estimate @ group[5].float(), truth)
    plain = MeanDegrees()
    plain.update(estimate, truth)
    assert metric.compute() == pytest.approx(plain.compute().item(), rel=1e-5)


def test_two_processes_say_what_one_would(tmp_path):
    worker = Path(__file__).parents[2] / "support" / "streaming_worker.py"
    root = os.pathsep.join([str(worker.parents[1]), os.environ.get("PYTHONPATH", "")])
    processes = [
        subprocess.Popen(
            [sys.executable, str(worker), str(rank), str(tmp_path / "meeting")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"PYTHONPATH": root},
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)


def test_without_torchmetrics_the_error_says_what_to_install():
    code = "import sys; sys.modules['torchmetrics'] = None; import svdrot; svdrot.evaluation.streaming"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert (
        'ImportError: `svdrot.evaluation.streaming` needs torchmetrics: `pip install "svdrot[metrics]"`.'
        in done.stderr
    )


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"`percent` must be from 0 to 100; got 101"):
        PercentileDegrees(101)
    with pytest.raises(ValueError, match=r"`degrees` must be positive and finite; got 0"):
        AccuracyAtDegrees(0)


def test_metrics_of_other_distances_are_not_merged():
    """Though they agree at first, which is what collections merge metrics by."""
    turns = symmetries.cyclic(2, torch.tensor([0.0, 0.0, 1.0]))
    alike = partial(losses.minimum_over_symmetries, symmetries=turns)
    both = MetricCollection({"plain": MeanDegrees(), "alike": MeanDegrees(distance=alike)})
    estimate, truth = rotations()
    estimate = truth @ axis_angle_to_matrix(0.05 * torch.ones(3))
    both.update(estimate, truth)
    both.update(truth @ turns[1], truth)
    assert both.compute()["plain"] > 80 and both.compute()["alike"] < 10
    one = rotation_metrics(distance=alike, accuracies=(1, 1.0000001))
    one.update(torch.full_like(truth, torch.nan), truth)
    one.update(estimate, truth)
    assert len(one.compute_groups) == 1 and {"acc_1_deg", "acc_1_0000001_deg"} <= one.compute().keys()


def test_arguments_of_metrics_are_named():
    eye = torch.eye(3)
    with pytest.raises(ValueError, match="`truth` must have shape"):
        MeanDegrees().update(eye, eye[0])
    with pytest.raises(TypeError, match="`estimate` must be a tensor"):
        MeanDegrees().update(eye.numpy(), eye)
