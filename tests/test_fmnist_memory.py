"The memories of the image system and the two networks built on them, seen from outside."

import time
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from anomaly_nb.core import DataError
from anomaly_nb.fmnist.base import MODELS, apply, build_model, image_tensor
from anomaly_nb.fmnist.data import load_subset
from anomaly_nb.fmnist.losses import FlexibleLoss
from anomaly_nb.fmnist.memory import HardMemory, KeyValueMemory, MemAE, memory_attention, memory_slots, revive
from anomaly_nb.fmnist.multimemory import (
    VIEWS,
    MultiMemoryAutoencoder,
    ThreeViewNetwork,
    decode_slots,
    fill_memories,
    init_memory,
    memory_report,
)
from anomaly_nb.fmnist.training import train_model
from anomaly_nb.fmnist.views import FFTEncoder, StructureEncoder, log_spectrum

OPTIONS = {"adaptive_center": True, "frequency_attention": True, "center_attention": True, "texture_slots": 16}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def clothes() -> dict[int, torch.Tensor]:
    images, labels = load_subset("train")
    return {label: image_tensor(images[labels == label]) for label in (2, 4)}


@pytest.fixture(scope="module", params=[{}, OPTIONS, {"queries": "location"}], ids=["plain", "options", "location"])
def filled(request, clothes) -> MultiMemoryAutoencoder:
    model = build_model("MultiMemoryAutoencoder", mem_size=60, dim=16, **request.param)
    init_memory(model, clothes[2].split(50), "cpu", mem_size=60)
    model.calibrate(clothes[2])
    return model


@settings(max_examples=40, deadline=None)
@given(
    slots=st.integers(1, 40),
    dim=st.integers(1, 8),
    temperature=st.sampled_from([0.02, 0.1, 1.0]),
    shrink=st.sampled_from([0.0, 0.5, 1.0, 3.0, 50.0]),
    seed=st.integers(0, 99),
)
def test_attention_is_a_share(slots, dim, temperature, shrink, seed):
    generator = torch.Generator().manual_seed(seed)
    query, keys = (torch.randn(n, dim, generator=generator) for n in (7, slots))
    weights = memory_attention(query, keys, temperature, shrink)
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(7))
    alone = memory_attention(query[3:4], keys, temperature, shrink)
    torch.testing.assert_close(alone[0], weights[3], atol=1e-5, rtol=1e-4)


def test_attention_beside_broadcast_cosines():
    query, keys = torch.randn(9, 12), torch.randn(30, 12)
    cosines = F.cosine_similarity(query[:, None], keys[None], dim=2)
    torch.testing.assert_close(memory_attention(query, keys, 0.2), (cosines / 0.2).softmax(dim=1))


def test_shrinkage_beside_the_published_formula():
    weights = memory_attention(query := torch.randn(20, 8), keys := torch.randn(50, 8), 1.0)
    limit = 1.2 / 50
    published = F.relu(weights - limit) * weights / ((weights - limit).abs() + 1e-12)
    published = published / published.sum(dim=1, keepdim=True)
    ours = memory_attention(query, keys, 1.0, 1.2)
    torch.testing.assert_close(ours, published, atol=1e-5, rtol=1e-4)
    assert ((ours == 0) == (weights < limit)).all()
    assert 0 < (ours == 0).sum() < ours.numel()


@pytest.mark.parametrize("queries", ["image", "location"])
def test_one_slot_gives_one_picture(clothes, queries):
    model = MultiMemoryAutoencoder(1, queries=queries)
    fill_memories(model, clothes[2])
    made = apply(model, "reconstruct", torch.cat([clothes[2][:3], clothes[4][:3]]))
    torch.testing.assert_close(made, made[:1].expand_as(made))
    assert made[0].std() > 0


def test_scores_without_batch_mates(filled, clothes):
    together = apply(filled, "anomaly_score", clothes[4][:20])
    backwards = apply(filled, "anomaly_score", clothes[4][:20].flip(0), 7).flip(0)
    torch.testing.assert_close(together, backwards, atol=1e-3, rtol=1e-3)
    assert torch.equal(together, apply(filled, "anomaly_score", clothes[4][:20]))
    codes = apply(filled, "latent", clothes[4][:20])
    torch.testing.assert_close(codes[5:6], apply(filled, "latent", clothes[4][5:6]), atol=1e-5, rtol=1e-4)


def test_spectra_of_single_images(clothes):
    batch = clothes[2][:5]
    for place in range(5):
        reference = np.abs(np.fft.fftshift(np.fft.fft2(batch[place, 0].double().numpy(), norm="ortho")))
        np.testing.assert_allclose(log_spectrum(batch)[place, 0].numpy(), np.log1p(reference), atol=1e-4)


def test_same_seed_same_memories(filled, clothes):
    before = {name: value.clone() for name, value in filled.memories.state_dict().items()}
    init_memory(filled, DataLoader(TensorDataset(clothes[2]), 32), "cpu", mem_size=60)
    assert all(torch.equal(value, before[name]) for name, value in filled.memories.state_dict().items())
    init_memory(filled, clothes[2].split(32), "cpu", mem_size=60, seed=1)
    assert any(not torch.equal(value, before[name]) for name, value in filled.memories.state_dict().items())
    filled.memories.load_state_dict(before)


def test_no_dead_slots_at_first(filled, clothes):
    report = memory_report(filled, clothes[2])
    assert list(report.index[:3]) == list(VIEWS)
    assert (report["in use"] >= 0.9 * report["slots"]).all()
    assert (report["perplexity"] > 5).all()


def test_slots_where_queries_are(clothes):
    model = ThreeViewNetwork(60, 16, "location")
    fill_memories(model, clothes[2])
    codes = model.eval().codes(clothes[2])["center"].detach()
    places = codes.movedim(1, -1).flatten(end_dim=-2)
    own = memory_attention(codes, model.memories["center"].keys, 1e-3)
    pooled = memory_slots(codes.mean(dim=(2, 3)), 60)
    similarity = [
        (F.normalize(places, dim=1) @ F.normalize(keys, dim=1).T).amax(dim=1).mean()
        for keys in (model.memories["center"].keys, pooled)
    ]
    assert similarity[0] > similarity[1]
    assert own.argmax(dim=1).unique().numel() > 50


def test_hard_choice_teaches_encoder_and_slot(clothes):
    encoder, memory = StructureEncoder(8), HardMemory(20, 8)
    answer = memory(encoder(clothes[2][:10]))
    assert torch.equal(answer.detach(), memory.values[memory.nearest(encoder(clothes[2][:10]))].detach())
    answer.square().sum().backward()
    assert all(part.grad.abs().sum() > 0 for part in encoder.parameters() if part.ndim > 1)
    memory.commitment(encoder(clothes[2][:10])).backward()
    assert 0 < (memory.values.grad != 0).any(dim=1).sum() <= 10


def test_soft_choice_teaches_encoder_and_values_only(clothes):
    encoder, memory = FFTEncoder(8), KeyValueMemory(20, 8, shrink=1.0)
    memory(encoder(clothes[2][:10])).square().sum().backward()
    assert all(part.grad.abs().sum() > 0 for part in encoder.parameters() if part.ndim > 1)
    assert memory.values.grad.abs().sum() > 0
    assert not memory.keys.requires_grad
    assert [name for name, _ in memory.named_parameters()] == ["values"]


def test_documented_loss_and_training(clothes):
    loss = FlexibleLoss(
        mode="mse+center_crop+ms-ssim+center_weighted",
        loss_weights={"mse": 0.6, "center_crop": 1.0, "ms-ssim": 0.5, "center_weighted": 0.5},
        reduction="mean",
        epoch=100,
    )
    model = build_model("MultiMemoryAutoencoder", mem_size=60, dim=16, warmup=400, **OPTIONS)
    train = partial(train_model, normals=clothes[2][:, 0].numpy(), criterion=loss, progress=False, mixed=False)
    train(model, epochs=2)
    assert model.ready
    before = {name: value.clone() for name, value in model.memories.state_dict().items()}
    train(model.train(), epochs=3)
    for name, value in model.memories.state_dict().items():
        assert torch.equal(value, before[name]) == name.endswith("keys")
    scores = apply(model, "anomaly_score", clothes[4])
    again = build_model("MultiMemoryAutoencoder", mem_size=60, dim=16, seed=1, **OPTIONS)
    again.load_state_dict(model.state_dict())
    assert torch.equal(apply(again, "anomaly_score", clothes[4]), scores)
    assert decode_slots(model, "structure", [0, 5], clothes[2][:8]).shape == (2, 1, 28, 28)


def test_resumed_warm_up(clothes):
    def run(model, batches):
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        for batch in batches:
            optimizer.zero_grad()
            model.loss(batch, F.mse_loss).backward()
            optimizer.step()
        return model

    make = partial(build_model, "MultiMemoryAutoencoder", mem_size=30, dim=8, warmup=150)
    batches = clothes[2].split(50)
    half = run(make(), batches[:2])
    assert not half.ready
    resumed = make(seed=5)
    resumed.load_state_dict(half.state_dict())
    run(half, batches[2:3])
    run(resumed, batches[2:3])
    assert half.ready
    assert torch.equal(half.memories["fft"].keys, resumed.memories["fft"].keys)


def test_memories_by_name(clothes):
    assert MODELS["MemAE"] is MemAE
    assert MODELS["MultiMemoryAutoencoder"] is MultiMemoryAutoencoder
    plain = build_model("MultiMemoryAutoencoder", memories=[])
    plain.calibrate(clothes[2])
    assert apply(plain, "anomaly_score", clothes[4]).isfinite().all()
    assert memory_report(plain, clothes[2]).empty


def test_memae_learns_with_exact_zeros(clothes):
    model = build_model("MemAE", mem_size=40, shrink=1.5)
    train_model(model, clothes[2][:, 0].numpy(), FlexibleLoss("mse"), epochs=3, progress=False)
    weights = apply(model, "attention", clothes[4])
    assert weights.isfinite().all()
    assert (weights == 0).any()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(weights)))


def test_slots_from_bad_codes():
    with pytest.raises(DataError, match="3 codes cannot fill 4 slots"):
        memory_slots(torch.randn(3, 2), 4)
    with pytest.raises(DataError, match="choose kmeans or mean"):
        memory_slots(torch.randn(9, 2), 4, "median")
    same = memory_slots(torch.ones(9, 2), 4, "mean")
    assert same.isfinite().all()
    assert revive(torch.zeros(3, 2), torch.eye(2)).isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"queries": "pixel"}, "choose image or location"),
        ({"memories": ["colour"]}, "There is no view 'colour'"),
        ({"slots": 3}, "unexpected keyword"),
    ],
)
def test_unknown_options(arguments, message):
    with pytest.raises(DataError, match=message):
        build_model("MultiMemoryAutoencoder", **arguments)


def test_loader_that_cannot_fill(clothes):
    model = MultiMemoryAutoencoder(60)
    for arguments, message in (
        ({"mem_size": 800}, "memories have 60 slots"),
        ({"mem_size": 60, "top_n": 20}, "20 codes cannot fill"),
    ):
        with pytest.raises(DataError, match=message):
            init_memory(model, clothes[2].split(20), "cpu", **arguments)
    assert not model.ready


@pytest.mark.slow
def test_step_time_of_800_slots(clothes):
    batch, seconds = clothes[2].repeat(2, 1, 1, 1)[:256], {}
    models = {
        name: build_model("MultiMemoryAutoencoder", memories=views)
        for name, views in (("with", VIEWS), ("without", ()))
    }
    fill_memories(models["with"], image_tensor(load_subset("train")[0]))
    models["without"].ready.fill_(True)
    for turn in range(6):
        for name, model in models.items():
            start = time.process_time()
            model.loss(batch, F.mse_loss).backward()
            if turn:
                seconds.setdefault(name, []).append(time.process_time() - start)
    assert np.median(seconds["with"]) <= 1.5 * np.median(seconds["without"])
