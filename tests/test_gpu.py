"""The five systems' networks on a graphics card: training, half precision, exact resume, and the processor's numbers.

They run wherever PyTorch finds a card, and are skipped elsewhere. Answers in single precision may differ from the
processor's by 1e-3 of the largest (cards round products to TF32 or sum in another order), in half precision by 5e-2.
"""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from anomaly_nb.dcase import VQ_VAE_2Layer
from anomaly_nb.dcgan import DCGANDiscriminator
from anomaly_nb.fmnist import build_model
from anomaly_nb.spectra import MaskedSpanAutoencoder
from anomaly_nb.srcnn import SRCNNNetwork
from anomaly_nb.training import train

CARD = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(CARD == "cuda" and not torch.cuda.is_available(), reason="there is no graphics card here"),
]


def autoencoder() -> nn.Module:
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((512, 6)))[0].T.astype(np.float32)
    return MaskedSpanAutoencoder(basis, np.ones(512, np.float32))


def first(answer: Any) -> Tensor:
    return answer if isinstance(answer, Tensor) else next(each for each in answer if isinstance(each, Tensor))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], list[tuple[int, ...]]]] = {
    "srcnn": (partial(SRCNNNetwork, 64), [(8, 64)]),
    "spectra": (autoencoder, [(8, 512), (8, 512)]),
    "dcgan": (partial(DCGANDiscriminator, 8, 64), [(8, 1, 64, 64)]),
    "fmnist": (partial(build_model, "CAE"), [(8, 1, 28, 28)]),
    "dcase": (partial(VQ_VAE_2Layer, 16, 1, 8, 32, 8), [(8, 1, 32, 32)]),
}


@pytest.fixture(params=NETWORKS)
def network_and_inputs(request: pytest.FixtureRequest) -> tuple[nn.Module, list[Tensor]]:
    make, shapes = NETWORKS[request.param]
    torch.manual_seed(0)
    return make(), [torch.rand(shape) for shape in shapes]


def answer(network: nn.Module, inputs: list[Tensor]) -> Tensor:
    if hasattr(network, "encode") and isinstance(network, VQ_VAE_2Layer):
        return first(network.encode(*inputs))
    return first(network(*inputs))


def loss(network: nn.Module, batch: list[Tensor]) -> Tensor:
    noisy = [each + 0.01 * torch.randn_like(each) for each in batch]
    return answer(network, noisy).float().square().mean()


def fitted(network: nn.Module, inputs: list[Tensor], epochs: int, **options: Any) -> dict[str, Tensor]:
    network = copy.deepcopy(network)
    adam = partial(torch.optim.Adam, lr=1e-3)
    options = {"progress": False, "accelerator": CARD, "devices": 1, **options}
    history = train(network, loss, TensorDataset(*inputs), epochs=epochs, batch_size=4, optimizer=adam, **options)
    assert len(history) == epochs and np.isfinite(history["loss"]).all()
    return {name: value.cpu() for name, value in network.state_dict().items()}


def test_answers_are_the_processors(network_and_inputs: tuple[nn.Module, list[Tensor]]) -> None:
    network, inputs = network_and_inputs
    with torch.no_grad():
        expected = answer(network.eval(), inputs)
        got = answer(network.to(CARD), [each.to(CARD) for each in inputs]).cpu()
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-3 * float(expected.abs().max()))


def test_half_precision_is_near(network_and_inputs: tuple[nn.Module, list[Tensor]]) -> None:
    network, inputs = network_and_inputs
    kind = torch.float16 if CARD == "cuda" else torch.bfloat16
    with torch.no_grad():
        expected = answer(network.eval(), inputs)
        with torch.autocast(CARD, kind):
            got = answer(network.to(CARD), [each.to(CARD) for each in inputs]).float().cpu()
    assert torch.isfinite(got).all()
    if not isinstance(network, VQ_VAE_2Layer):  # whose answers are entries of a codebook: near or another one
        torch.testing.assert_close(got, expected, rtol=0, atol=5e-2 * float(expected.abs().max()))


def test_training_changes_weights_and_ends_on_the_processor(
    network_and_inputs: tuple[nn.Module, list[Tensor]],
) -> None:
    network, inputs = network_and_inputs
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for options in ({}, {"precision": "16-mixed" if CARD == "cuda" else "bf16-mixed"}):
        after = fitted(network, inputs, 2, **options)
        assert all(torch.isfinite(value).all() for value in after.values() if value.is_floating_point())
        assert any(not torch.equal(after[name], before[name]) for name in before)


def test_a_resumed_run_ends_like_an_undisturbed_one(
    network_and_inputs: tuple[nn.Module, list[Tensor]], tmp_path: Path
) -> None:
    network, inputs = network_and_inputs

    class Stop(Exception):
        pass

    class StopsInSecondEpoch(Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.global_step == 3:
                raise Stop

    def run(folder: str, *callbacks: Callback) -> dict[str, Tensor]:
        return fitted(network, inputs, 3, folder=tmp_path / folder, deterministic=True, callbacks=callbacks)

    whole = run("whole")
    with pytest.raises(Stop):
        run("stopped", StopsInSecondEpoch())
    stopped = run("stopped")
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)
