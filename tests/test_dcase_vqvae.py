"""The network: its shapes, its codebooks, its checkpoints."""

import logging
from pathlib import Path

import pytest
import torch

from anomaly_nb.core import DataError, folder_lock
from anomaly_nb.dcase import (
    Rebuilder,
    VQ_VAE_2Layer,
    checkpoint_path,
    study_residuals,
    synthesize_machines,
    train_vqvae,
)
from anomaly_nb.dcase.vqvae import PRESETS, Codebook, nearest_codes


def test_documented_shapes_and_size():
    network = VQ_VAE_2Layer(
        num_hiddens=128,
        num_residual_layers=2,
        num_residual_hiddens=64,
        num_embeddings=(1024, 4096),
        embedding_dim=128,
        commitment_cost=0.25,
        decay=0.99,
    )
    parts = {name: sum(p.numel() for p in getattr(network, name).parameters()) for name, _ in network.named_children()}
    assert parts == {
        "enc_bot": 443_712,
        "enc_top": 573_696,
        "pre_vq_top": 16_512,
        "pre_vq_bot": 32_896,
        "vq_top": 262_144,
        "vq_bot": 1_048_576,
        "dec_top": 573_696,
        "dec_bot": 591_041,
    }
    with torch.no_grad():
        q_bot, q_top = network.eval().encode(torch.zeros(1, 1, 128, 64))
        assert q_bot.shape == (1, 128, 32, 16) and q_top.shape == (1, 128, 16, 8)
        assert network.decode_general(q_bot, q_top).shape == (1, 1, 128, 64)


def test_forward_order_and_one_size_for_both():
    network = VQ_VAE_2Layer(16, 1, 8, 32, 8)
    loss_bot, loss_top, rebuilt, q_top, q_bot, perplexity_top, perplexity_bot = network(torch.randn(2, 1, 32, 32))
    assert rebuilt.shape == (2, 1, 32, 32) and q_bot.shape[2] == 2 * q_top.shape[2]
    assert 1 <= float(perplexity_top) <= 32 and 1 <= float(perplexity_bot) <= 32
    (rebuilt.mean() + loss_bot + loss_top).backward()
    assert all(p.grad is not None for name, p in network.named_parameters() if "vq_" not in name or "pre_" in name)


def test_codes_are_those_of_the_one_hot_form():
    vectors, codebook = torch.randn(3000, 16), torch.randn(100, 16)
    codes = nearest_codes(vectors, codebook, rows=256)
    assert torch.equal(codes, torch.cdist(vectors, codebook).argmin(dim=1))


def test_entries_follow_the_data_and_dead_ones_are_revived():
    torch.manual_seed(1)
    centres = 4 * torch.randn(12, 6)
    codebook = Codebook(48, 6, decay=0.9).train()
    for step in range(120):
        shift = 0 if step < 30 else 20  # the data move away, which kills all entries
        batch = shift + centres[torch.randint(12, (800,))] + 0.05 * torch.randn(800, 6)
        loss, _, _, perplexity = codebook(batch.T.reshape(1, 6, 20, 40))
    assert float(loss) < 0.1 and float(perplexity) > 8


def test_evaluation_changes_nothing():
    network = VQ_VAE_2Layer(16, 1, 8, (8, 16), 8).train()
    network(torch.randn(2, 1, 32, 32))
    network.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x = torch.randn(3, 1, 32, 32)
    first = network(x)[2]
    assert torch.equal(first, network(x)[2])
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_untrained_networks_are_called_so(caplog):
    with caplog.at_level(logging.WARNING):
        VQ_VAE_2Layer(16, 1, 8, (8, 16), 8).eval().encode(torch.zeros(1, 1, 32, 32))
    assert "never been trained" in caplog.text


@pytest.mark.parametrize("shape", [(1, 1, 128, 313), (1, 2, 128, 320), (128, 320)])
def test_shapes_that_do_not_fit(shape):
    with pytest.raises(DataError):
        VQ_VAE_2Layer(16, 1, 8, (8, 16), 8)(torch.zeros(shape))


def test_training_leaves_a_checkpoint_that_loads(tmp_path):
    synthesize_machines(tmp_path / "data", ["fan"], 1, 4, 2, 2, seconds=2.05)
    options = {"accelerator": "cpu", "progress": False, "epochs": 1, "batch_size": 4}
    generator = torch.get_rng_state()
    path = train_vqvae(tmp_path / "data", "fan", tmp_path / "a", **options)
    assert torch.equal(torch.get_rng_state(), generator)
    assert path == checkpoint_path(tmp_path / "a", "fan") == tmp_path / "a/stage1/fan/stage1_fan_best.pt"
    state = torch.load(path, map_location="cpu", weights_only=True)
    VQ_VAE_2Layer(**PRESETS["small"]).load_state_dict(state["model_state_dict"])
    again = train_vqvae(tmp_path / "data", "fan", tmp_path / "b", **options)
    other = torch.load(again, weights_only=True)["model_state_dict"]
    assert all(torch.equal(value, other[name]) for name, value in state["model_state_dict"].items())
    report, notes = study_residuals(tmp_path / "data", tmp_path / "a")
    assert report is not None and not notes and report.machines[0].unit == "dB of residual"
    assert report.machines[0].train.moments.mean.min() >= 0
    assert Rebuilder(path).residual(torch.zeros(1, 128, 65).numpy()).shape == (1, 128, 65)


def test_a_job_of_many_that_works_alone_has_the_lock(tmp_path, monkeypatch):
    monkeypatch.setenv("NODE_RANK", "1")
    synthesize_machines(tmp_path / "data", ["fan"], 1, 2, 1, 1, seconds=0.5)
    options = {"accelerator": "cpu", "progress": False, "epochs": 1}
    with folder_lock(checkpoint_path(tmp_path, "fan").parent), pytest.raises(DataError, match="another run works here"):
        train_vqvae(tmp_path / "data", "fan", tmp_path, **options)
    assert train_vqvae(tmp_path / "data", "fan", tmp_path, **options).exists()


def test_residuals_of_untrained_networks_are_refused(tmp_path):
    synthesize_machines(tmp_path / "data", ["fan"], 1, 2, 1, 1, seconds=2.05)
    path = checkpoint_path(tmp_path, "fan")
    path.parent.mkdir(parents=True)
    weights = VQ_VAE_2Layer(**PRESETS["small"]).state_dict()
    torch.save({"model_state_dict": weights, "mean": 0.0, "std": 1.0, "size": PRESETS["small"]}, path)
    with pytest.raises(DataError, match="this network has never been trained"):
        study_residuals(tmp_path / "data", tmp_path, out=tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_damaged_checkpoints(tmp_path):
    torch.save({"weights": torch.zeros(2)}, tmp_path / "x.pt")
    with pytest.raises(DataError, match="not a checkpoint of train_vqvae"):
        Rebuilder(tmp_path / "x.pt")
    with pytest.raises(DataError, match="no such checkpoint"):
        Rebuilder(tmp_path / "y.pt")


def follow_together(rank: int, address: str, folder: Path) -> None:
    "A process of two that see half of each batch."
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    torch.save(followed(rank, 2).state_dict(), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def followed(rank: int, world: int) -> Codebook:
    "A codebook after ten steps over this process's share of each batch."
    torch.manual_seed(0)
    codebook, batches = Codebook(6, 4).train(), torch.randn(10, 8, 4, 5, 5)
    codebook.steps += 1  # its first entries are not taken from the data
    for batch in batches:
        codebook(batch[rank::world])
    return codebook


def test_two_processes_follow_the_data_like_one(tmp_path: Path) -> None:
    address = f"file://{tmp_path / 'meeting'}"
    torch.multiprocessing.spawn(follow_together, (address, tmp_path), nprocs=2)
    alone = followed(0, 1).state_dict()
    for rank in range(2):
        for name, value in torch.load(tmp_path / f"{rank}.pt", weights_only=True).items():
            torch.testing.assert_close(value, alone[name], rtol=1e-4, atol=1e-5)
