"""The calls of a study notebook as it stands elsewhere: data sets by type, the documented network, its checkpoint."""

from collections import defaultdict

import numpy as np
import pytest
import torch

from anomaly_nb.dcase import (
    DCASE2020Task2LogMelDataset,
    DCASE2020Task2TestDataset,
    VQ_VAE_2Layer,
    synthesize_machines,
    train_vqvae,
)

DOCUMENTED = {
    "num_hiddens": 128,
    "num_residual_layers": 2,
    "num_residual_hiddens": 64,
    "num_embeddings": (1024, 4096),
    "embedding_dim": 128,
    "commitment_cost": 0.25,
    "decay": 0.99,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("machines")
    synthesize_machines(root, ["fan"], 2, 4, 2, 3, seconds=4)
    return root


@pytest.fixture(scope="module")
def stacked(root):
    train = DCASE2020Task2LogMelDataset(root=str(root), machine_type="fan", normalize=True)
    scale = {"mean": train.mean, "std": train.std, "target_T": train.target_T}
    test = DCASE2020Task2TestDataset(root=str(root), machine_type="fan", **scale)
    _, channels, mels, frames = train.data.shape
    assert (channels, mels) == (1, 128) and frames % 8 == 0
    grouped = defaultdict(lambda: {0: [], 1: []})
    for index in range(len(test)):
        spectrogram, label, machine = test[index]
        assert spectrogram.shape == (1, mels, frames)
        grouped[machine][label].append(spectrogram.squeeze(0).numpy())
    return {machine: {label: np.stack(kept) for label, kept in labels.items()} for machine, labels in grouped.items()}


def test_clips_by_machine_and_label(stacked):
    assert sorted(stacked) == ["id_00", "id_02"]
    for labels in stacked.values():
        assert len(labels[0]) == 2 and len(labels[1]) == 3
        deviation = np.abs(labels[1] - labels[0].mean(axis=0)).mean(axis=0)
        assert np.isfinite(deviation).all() and deviation.max() > 0


def test_a_type_without_a_folder_is_a_missing_file(root):
    with pytest.raises(FileNotFoundError, match="pump"):
        DCASE2020Task2LogMelDataset(root=str(root), machine_type="pump", normalize=True)


def test_residuals_of_the_documented_network(root, stacked, tmp_path):
    options = {"accelerator": "cpu", "progress": False, "epochs": 1, "batch_size": 4}
    path = train_vqvae(root, "fan", tmp_path / "checkpoints", preset="full", **options)
    assert path == tmp_path / "checkpoints" / "stage1" / "fan" / "stage1_fan_best.pt"
    network = VQ_VAE_2Layer(**DOCUMENTED)
    state = torch.load(path, map_location="cpu", weights_only=True)
    network.load_state_dict(state["model_state_dict"])
    network.eval()
    clips = torch.from_numpy(stacked["id_00"][1][:5]).float().unsqueeze(1)
    with torch.no_grad():
        q_bot, q_top = network.encode(clips)
        rebuilt = network.decode_general(q_bot, q_top)
    assert rebuilt.shape == clips.shape and q_bot.shape[1] == q_top.shape[1] == 128
    residual = (clips - rebuilt).abs()
    assert torch.isfinite(residual).all() and residual.mean() < 2 * clips.abs().mean()
