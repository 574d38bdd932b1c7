"""Random networks of every opset have the gradients that PyTorch finds for the same computation, in double."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime as ort
import pytest

torch = pytest.importorskip("torch")

from onnxviz.gradient.model import gradient_model  # noqa: E402 - after the check for PyTorch
from onnxviz.graph.model import from_proto, to_proto  # noqa: E402
from tests.gradient.random_nets import Net, random_net  # noqa: E402

OPSETS = range(7, 27)


def run(model: onnx.ModelProto, names: list[str], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    settings = ort.SessionOptions()
    settings.log_severity_level, settings.intra_op_num_threads = 4, 1
    session = ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return [np.asarray(array) for array in session.run(names, dict(feeds))]


def disagreements(net: Net, output: str, seed: int, factor: float = 1.0) -> list[str]:
    """Return the inputs, weights and intermediate tensors whose gradients differ."""
    rng, model = np.random.default_rng(seed), net.model([output])
    between = [name for name in net.made if net.values[name].requires_grad and name != output]
    asked = [*net.asked, *map(str, rng.permutation(between)[:3])]
    value = net.values[output]
    entering = rng.normal(size=tuple(value.shape)).astype(np.float32)
    true = torch.autograd.grad(
        value, [net.values[name] for name in asked], torch.tensor(entering, dtype=torch.float64), allow_unused=True
    )
    wanted = {name: factor * grad.numpy() for name, grad in zip(asked, true, strict=True) if grad is not None}
    made = gradient_model(from_proto(model), output, list(wanted))
    names, feeds = list(made.gradients.values()), {**net.feeds, str(made.seed): entering}
    answer, *found = run(to_proto(made.model), [output, *names], feeds)
    np.testing.assert_allclose(answer, run(model, [output], net.feeds)[0], rtol=1e-4, atol=1e-5)
    # A bias before a norm has the gradient 0, of which float32 leaves what the terms leave.
    floor = 0.01 * max(float(np.abs(grad).max()) for grad in wanted.values())
    return [
        name for name, grad in zip(made.gradients, found, strict=True)
        if grad.shape != wanted[name].shape
        or not np.abs(grad - wanted[name]).max() <= 2e-3 * max(np.abs(wanted[name]).max(), floor)
    ]  # fmt: skip


def usable(seed: int, opset: int) -> tuple[Net, str] | None:
    """Return a network whose PyTorch half computes what onnxruntime does; None where runtimes refuse it."""
    net, output = random_net(seed, opset, symbolic=bool(seed % 2))
    if not net.made or output not in net.made:
        return None
    try:
        answer = run(net.model([output]), [output], net.feeds)[0]
    except (ort.capi.onnxruntime_pybind11_state.Fail, ort.capi.onnxruntime_pybind11_state.RuntimeException):
        return None
    value = net.values[output].detach().numpy()
    assert answer.shape == value.shape
    np.testing.assert_allclose(answer, value, rtol=0, atol=3e-4 * max(1, np.abs(value).max()))
    return net, output


@pytest.mark.parametrize("opset", OPSETS)
def test_random_networks_agree_with_pytorch(opset: int) -> None:
    nets = [(seed, made) for seed in range(100 * opset, 100 * opset + 8) if (made := usable(seed, opset))]
    assert len(nets) > 4
    wrong = {seed: names for seed, (net, output) in nets if (names := disagreements(net, output, seed))}
    assert not wrong


def test_a_gradient_that_is_off_by_a_hundredth_is_caught() -> None:
    made = [usable(seed, 18) for seed in range(6)]
    assert all(disagreements(*net, 0, factor=1.01) for net in made if net is not None)
