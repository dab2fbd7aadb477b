"""The engine: a formula of scalars in, kernels out. It knows nothing of rotations.

graph        a formula, called once with symbols, leaves a graph
words        what a formula may say beside the operators of Python
derivatives  of graphs, as graphs: reverse and forward mode
program      a graph that knows its derivatives
elementary   sin, cos, atan2, exp and log as formulas
lowering     a graph in what a machine has
vectors      the writer for CPUs: LLVM; lanes, storage and machine belong to it, and cpu calls it
triton_      the writer for GPUs: Triton; triton_words belongs to it, and gpu calls it
layout       how arrays lie, for cpu and gpu
operations   the writer for everything else: torch operations
door         from tensors to kernels and back, in every mode of torch
maps         formulas as differentiable functions of tensors
"""
