"""`device: cuda`: how a model is run there, and what is said where there is no GPU.

Most tests run on stand-ins that compute on the CPU. Those that need a GPU are skipped without one.
"""

from __future__ import annotations

import json
from dataclasses import replace

import cuda_stand_ins
import numpy as np
import onnxruntime
import pytest
import tiny
import tiny_run
import torch
from cuda_stand_ins import has_nvml
from tiny_graphs import normal, saved, written
from transformers import AutoModelForImageClassification

from benchcard import Benchmark, registry
from benchcard.analysis import reasons, row_facts
from benchcard.errors import BenchcardError
from benchcard.frameworks.kernels import Kernel, read_kernels
from benchcard.measure.blocks import Subject
from benchcard.measure.process import Launchers

__all__ = ["has_nvml"]

TASK = {"task": "image-classification"}
CUDA = ["CUDAExecutionProvider", "CPUExecutionProvider"]
PIXELS = {"pixel_values": normal(2, 3, 8, 8)}
has_gpu = torch.cuda.is_available() and CUDA[0] in onnxruntime.get_available_providers()
needs_gpu = pytest.mark.skipif(not has_gpu, reason="there is no GPU that PyTorch and onnxruntime-gpu can use")
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny image model."""
    return tiny.write_model(tmp_path_factory.mktemp("cuda") / "model")


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """A product of matrices."""
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[b, 4] x) => (float[b, 4] y) { y = MatMul(x, w) }'
    return saved(written(text, {"w": normal(4, 4)}), tmp_path_factory.mktemp("cuda") / "model.onnx")


@pytest.fixture
def gpu_of_torch(monkeypatch):
    """A stand-in for a GPU of PyTorch; it returns the list of what was done: copies to it, and waiting for it."""
    done = []
    to_device, to_host = torch.Tensor.to, torch.Tensor.cpu

    def to(tensor, *target, **others):
        if target != ("cuda",):
            return to_device(tensor, *target, **others)
        done.append("to")
        return tensor

    def cpu(tensor):
        done.append("cpu")
        return to_host(tensor)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: done.append("synchronize"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 123_000_000)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(torch.Tensor, "cpu", cpu)
    monkeypatch.setattr(torch.nn.Module, "to", lambda module, device: done.append(f"model to {device}"))
    return done


def test_a_timed_call_of_pytorch_copies_and_waits(folder, gpu_of_torch, has_nvml):
    """Inputs are copied to the GPU and outputs from it within the call, which ends when the GPU has finished."""
    has_nvml(cuda_stand_ins.healthy())
    model = registry.framework("pytorch").open(folder, {**TASK, "device": "cuda"})
    prepared = model.prepare(PIXELS)
    assert gpu_of_torch == ["model to cuda"]
    assert model.run(prepared)["logits"].shape == (2, 3)
    assert gpu_of_torch[1:] == ["to", "cpu", "synchronize"]
    assert model.facts["device_memory_bytes"] == 500_000_000
    assert model.facts["device_allocated_bytes"] == 123_000_000
    assert torch.backends.cudnn.allow_tf32 is False
    expected = registry.framework("pytorch").open(folder, TASK)(PIXELS)
    np.testing.assert_array_equal(model(PIXELS)["logits"], expected["logits"])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_pytorch_computes_in_the_type_that_was_asked_for(folder, dtype):
    """As transformers does that loads the model in this type; outputs are float32."""
    model = registry.framework("pytorch").open(folder, {**TASK, "torch_dtype": dtype})
    loaded = AutoModelForImageClassification.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    with torch.inference_mode():
        expected = loaded(torch.from_numpy(PIXELS["pixel_values"]).to(loaded.dtype)).logits
    outputs = model(PIXELS)["logits"]
    assert outputs.dtype == np.float32
    np.testing.assert_array_equal(outputs, expected.float().numpy())
    assert model.module.dtype == getattr(torch, dtype)
    assert model.facts["torch_dtype"] == dtype


@pytest.fixture
def session_with(monkeypatch):
    """A function that gives ONNX Runtime and its sessions these providers; it returns those that were asked for."""
    real, asked = onnxruntime.InferenceSession, []

    def have(available, loaded=CUDA):
        def session(path, settings, providers):
            asked.append(providers)
            opened = real(path, settings, providers=["CPUExecutionProvider"])
            monkeypatch.setattr(opened, "get_providers", lambda: loaded)
            return opened

        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
        monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: asked.append("libraries"))
        monkeypatch.setattr(onnxruntime, "InferenceSession", session)
        return asked

    return have


def test_onnxruntime_runs_on_its_cuda_provider(graph, session_with, has_nvml):
    """In float32 and not in TF32, with the libraries of CUDA loaded first; what has no kernel there runs on the CPU."""
    has_nvml(cuda_stand_ins.healthy())
    asked = session_with(CUDA)
    model = registry.framework("onnxruntime").open(graph, {"device": "cuda"})
    assert asked == ["libraries", [("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider"]]
    assert model.facts["providers"] == CUDA
    assert model.facts["device_memory_bytes"] == 500_000_000
    assert registry.framework("onnxruntime").open(graph, {"device": "cpu"}).facts.keys() == model._facts.keys()
    assert asked[-1] == ["CPUExecutionProvider"]


def test_a_provider_that_is_not_loaded_is_no_silent_cpu(graph, session_with):
    """ONNX Runtime itself goes on with the CPU."""
    session_with(CUDA, loaded=CUDA[1:])
    with pytest.raises(BenchcardError, match="`onnxruntime` cannot run with `device: cuda`: its CUDA provider was not"):
        registry.framework("onnxruntime").open(graph, {"device": "cuda"})


@without_gpu
def test_without_a_gpu_each_framework_says_what_it_lacks(folder, graph):
    """By name, with what to install."""
    with pytest.raises(BenchcardError, match=r"`pytorch` cannot run with `device: cuda`: .*\(torch 2\."):
        registry.framework("pytorch").open(folder, {**TASK, "device": "cuda"})
    with pytest.raises(BenchcardError, match="pip uninstall onnxruntime && pip install 'onnxruntime-gpu"):
        registry.framework("onnxruntime").open(graph, {"device": "cuda"})


def test_processes_on_a_gpu_are_not_forked(tmp_path):
    """CUDA may have been initialized by the import of a library, and does not survive a fork."""
    launchers = Launchers()
    on_cpu, on_gpu = (Subject("a", "onnxruntime", tmp_path, tmp_path, 1, {"device": each}) for each in ("cpu", "cuda"))
    assert launchers._parent((on_gpu, False)) == ("a", False)
    assert launchers._parent((on_cpu, False)) != ("a", False)


def test_kernels_of_a_gpu_that_fall_back_to_the_cpu_are_known(tmp_path):
    """Two nodes of one operator may run on two devices; without a GPU no kernel has fallen back."""
    devices = {"MatMul": CUDA[0], "Shape": CUDA[1], "Add": CUDA[0], "Add_1": CUDA[1]}
    nodes = [
        {
            "cat": "Node",
            "name": f"{name}_kernel_time",
            "ts": place + 1,
            "dur": 1,
            "args": {"op_name": name.partition("_")[0], "provider": provider, "node_index": str(place)},
        }
        for place, (name, provider) in enumerate(devices.items())
    ]
    run = {"cat": "Session", "name": "model_run", "ts": 0, "dur": 100, "args": {}}
    (tmp_path / "profile.json").write_text(json.dumps([run, *nodes]))
    kernels = {(each.name, each.on_cpu): each.nodes for each in read_kernels(tmp_path / "profile.json", gpu=True)}
    assert kernels == {("MatMul", False): 1, ("Shape", True): 1, ("Add", False): 1, ("Add", True): 1}
    assert not any(each.on_cpu for each in read_kernels(tmp_path / "profile.json"))


GRID = """
grid:
  framework: [onnxruntime, pytorch]
  framework_args.device: [cpu, cuda]
  framework_args.torch_dtype: [float32, bfloat16]
framework_args: {intra_op_num_threads: 1}
duration: 0.2
warmup_runs: 1
"""


@pytest.mark.slow
@without_gpu
def test_a_grid_with_a_gpu_runs_without_one(ground, tmp_path):
    """Rows on the CPU are measured, and those on the GPU say what they lack."""
    spec = tiny_run.spec_with(ground, tiny_run.SPEC + GRID, "cuda.yaml")
    results = Benchmark.from_spec(spec).run(tmp_path / "run", progress=False)
    frame = results.time.set_index("row")
    on_cpu = results.quality["framework_args.device"] == "cpu"
    assert on_cpu.sum() == 3
    assert frame["ratio"].notna().tolist() == on_cpu.tolist()
    assert results.failures["message"].str.contains("cannot run with `device: cuda`").all()
    assert set(results.failures["row"]) == set(results.quality["row"][~on_cpu])
    assert "`framework_args.torch_dtype`" in str(results.card())
    record = results.records.records[0]
    kernels = (Kernel("MatMul", "float", 3, 0.9), Kernel("Shape", "other", 2, 0.1, on_cpu=True))
    evaluate = record.outcomes.evaluate
    outcomes = replace(record.outcomes, evaluate=replace(evaluate, values=replace(evaluate.values, kernels=kernels)))
    arguments = {**record.configuration.parameters, "framework_args": {"device": "cuda"}}
    moved = replace(record, outcomes=outcomes, configuration=replace(record.configuration, parameters=arguments))
    assert row_facts.on_gpu(moved)
    sentences = list(reasons.explain_row(results.records, moved, {}, None))
    assert "Of its nodes, 2 `Shape` run on the CPU." in sentences
    assert not any("Time of a call" in sentence for sentence in sentences)


@pytest.mark.slow
@needs_gpu
def test_a_grid_on_a_gpu(ground, tmp_path):
    """Both frameworks agree with the CPU, in one table with the memory of the GPU."""
    spec = tiny_run.spec_with(ground, tiny_run.SPEC + GRID, "cuda.yaml")
    results = Benchmark.from_spec(spec).run(tmp_path / "run", progress=False)
    assert results.failures.empty
    assert results.time["ratio"].notna().all()
    plain = results.quality["framework_args.torch_dtype"] != "bfloat16"
    assert (results.quality["kl_mean"][plain] < 1e-9).all()
    opened = [each for parts in results.records.parts.values() for part in parts for each in part.outcome.opened]
    on_gpu = [each.facts for each in opened if each.facts.get("device") == "cuda"]
    assert {each["forked"] for each in on_gpu} <= {False}
    assert all(each["device_allocated_bytes"] > 0 for each in on_gpu if str(each["runtime"]).startswith("torch"))
    if results.records.info.machine.gpu:
        assert results.noise["gpu_clock_before_mhz"].notna().all()
