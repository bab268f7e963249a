"""The study, masks and detectors on synthetic machines, from the outside."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import ttest_ind

from anomaly_nb.audio import HTK, write_audio
from anomaly_nb.core import DataError
from anomaly_nb.dcase import (
    AudioSpecificStrategy,
    DCASEFolder,
    MaskPrior,
    NormalSound,
    Patch,
    PerlinStrategy,
    SoundDetector,
    SpectrogramStudy,
    compare_masks,
    energy_test,
    evaluate_detector,
    generate_anomalies,
    official_table,
    permutation_test,
    spectrogram_batches,
    synthesize_machines,
)
from anomaly_nb.dcase import groups as groups_module
from anomaly_nb.dcase.alignment import Intervals
from anomaly_nb.dcase.detector import METHODS
from anomaly_nb.dcase.machine_result import MachineResult
from anomaly_nb.dcase.study import MachineReader, study_machines
from anomaly_nb.dcase.vqvae import train_vqvae
from anomaly_nb.store import Results


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("machines")
    synthesize_machines(root, ["fan", "slider"], 2, 10, 6, 6, seconds=4)
    return root


@pytest.fixture(scope="module")
def report(root):
    return SpectrogramStudy(root).run(root / "report")


def test_the_report(root, report):
    table = report.table()
    assert len(table) == 4 and set(table["aligned"]) == {"unaligned", "cycle"}
    assert (table["region"] > table["control_region"]).all()
    assert table["low"].le(table["change"]).all() and table["change"].le(table["high"]).all()
    page = (root / "report/study.html").read_text()
    assert page.count("<audio") == 8 and page.count("<img") == 4 and "http" not in page.split("</style>")[1][:200]


def test_saved_maps_read_back(root, report):
    for machine in report.machines:
        with np.load(root / f"report/maps/{machine.machine_type}_{machine.machine_id}.npz") as file:
            maps = dict(file)
        hertz, seconds = maps.pop("hertz"), maps.pop("seconds")
        assert {array.shape for array in maps.values()} == {(128, machine.aligner.width)}
        assert hertz.shape == (129,) and np.allclose(seconds, np.arange(machine.aligner.width + 1) * 0.032)
        assert np.allclose(maps["difference"], maps["anomaly"] - maps["normal"], atol=1e-4)
        assert np.allclose(maps["normal"] + maps["control_difference"], machine.normal.moments.mean, atol=1e-4)
        row = machine.row()
        assert (np.abs(maps["shrunken"]) >= 3).mean() == pytest.approx(row["region"], abs=1e-3)
        assert (np.abs(maps["control_shrunken"]) >= 3).mean() == pytest.approx(row["control_region"], abs=1e-3)
        assert set(np.unique(maps["significant"])) <= {0, 1} and maps["auc"].min() >= 0 and maps["auc"].max() <= 1
        assert maps["significant"].mean() == pytest.approx(row["significant"])
        assert {"deviation", "effect"} <= set(maps)


@pytest.mark.parametrize("where", ["cores", "cluster"])
def test_cores_and_a_cluster_write_what_one_process_writes(root, report, tmp_path, where, request):
    engine = {"workers": 2}
    if where == "cluster":
        engine = {"scheduler": request.getfixturevalue("cluster").address}
    shared = SpectrogramStudy(root).run(tmp_path, **engine)
    assert shared.summaries() == report.summaries()
    maps = [f"maps/{path.name}" for path in (root / "report/maps").iterdir()]
    for file in ["study.csv", "bands.csv", "frames.csv", *maps]:
        assert (tmp_path / file).read_bytes() == (root / "report" / file).read_bytes(), file


def counted(monkeypatch):
    "The machines that are read from now on."
    read, study = [], MachineReader.study
    monkeypatch.setattr(MachineReader, "study", lambda work, *names: (read.append(names), study(work, *names))[1])
    return read


def finished_machines(out):
    "The lines of whole machines, behind the key of an unfinished study."
    manifest = out / "unfinished/manifest.jsonl"
    return max(manifest.read_text().count("\n") - 1, 0) if manifest.exists() else 0


def test_a_killed_study_goes_on(root, report, tmp_path, monkeypatch):
    script = f"from anomaly_nb.dcase import SpectrogramStudy; SpectrogramStudy({str(root)!r}).run({str(tmp_path)!r})"
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        while not finished_machines(tmp_path) and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    finished = finished_machines(tmp_path)
    assert 0 < finished < 4 and not (tmp_path / "study.html").exists()
    read = counted(monkeypatch)
    again = SpectrogramStudy(root).run(tmp_path)
    assert len(read) == 4 - finished
    assert again.summaries() == report.summaries()
    assert (tmp_path / "study.csv").read_bytes() == (root / "report/study.csv").read_bytes()
    assert not (tmp_path / "unfinished").exists()


def test_a_machine_that_fails_is_named_and_tried_again(tmp_path, monkeypatch):
    synthesize_machines(tmp_path, ["fan"], 2, 3, 2, 2, seconds=2)
    study = MachineReader.study

    def fails(work, *names):
        if names == ("fan", "id_02"):
            raise DataError("The drive was unplugged.")
        return study(work, *names)

    with monkeypatch.context() as patch:
        patch.setattr(MachineReader, "study", fails)
        first = SpectrogramStudy(tmp_path).run(tmp_path / "out")
    assert [machine.machine_id for machine in first.machines] == ["id_00"]
    assert first.notes == ["fan id_02 could not be studied: The drive was unplugged."]
    assert first.failed == {"fan id_02": "The drive was unplugged."}
    assert first.notes[0] in (tmp_path / "out/study.html").read_text()
    read = counted(monkeypatch)
    assert len(SpectrogramStudy(tmp_path).run(tmp_path / "out").machines) == 2
    assert read == [("fan", "id_02")]


def test_kept_machines_belong_to_their_clips_and_settings(tmp_path, monkeypatch):
    synthesize_machines(tmp_path, ["fan"], 1, 3, 2, 2, seconds=2)
    reader, fan = SpectrogramStudy(tmp_path).reader, [("fan", "id_00")]

    def kept():
        return Results(tmp_path / "kept", reader.key())

    (first,), failed = study_machines(reader, fan, kept())
    read = counted(monkeypatch)
    (again,), _ = study_machines(reader, fan, kept())
    assert not failed and not read and again.sentence() == first.sentence()
    other = SpectrogramStudy(tmp_path, align={"fan": "cycle"}).reader
    with pytest.raises(DataError, match=r"another job \(align fan: .*restart"):
        Results(tmp_path / "kept", other.key())
    file = tmp_path / "kept/fan_id_00.npz"
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:-9] + bytes(9)):
        file.write_bytes(damaged)
        assert study_machines(reader, fan, kept())[0][0].sentence() == first.sentence()
    assert len(read) == 2
    os.utime(next((tmp_path / "fan/test").glob("anomaly*")), (0, 0))
    study_machines(reader, fan, kept())
    assert len(read) == 3


def test_other_settings_are_refused_and_begun_anew(tmp_path, monkeypatch):
    synthesize_machines(tmp_path, ["fan"], 2, 3, 2, 2, seconds=2)
    study = MachineReader.study

    def fails(reader, *names):
        if names[1] == "id_02":
            raise DataError("The drive was unplugged.")
        return study(reader, *names)

    with monkeypatch.context() as patch:
        patch.setattr(MachineReader, "study", fails)
        SpectrogramStudy(tmp_path).run(tmp_path / "out")
    other = SpectrogramStudy(tmp_path, align={"fan": "cycle"})
    with pytest.raises(DataError, match="holds results of another job"):
        other.run(tmp_path / "out")
    assert len(other.run(tmp_path / "out", restart=True).machines) == 2
    assert not (tmp_path / "out/unfinished").exists()


def test_results_read_back_from_arrays(report):
    for machine in report.machines:
        again = MachineResult.from_arrays(machine.to_arrays())
        assert str(again.row()) == str(machine.row()) and again.sentence() == machine.sentence()
        assert np.array_equal(again.found.shrunken, machine.found.shrunken)
        assert again.aligner.width == machine.aligner.width and type(again.aligner) is type(machine.aligner)


def test_no_machine_could_be_studied(tmp_path):
    synthesize_machines(tmp_path, ["fan"], 1, 3, 2, 2, seconds=2)

    def view(machine_type, batch):
        raise DataError("No network.")

    with pytest.raises(DataError, match=r"no machine could be studied. fan id_00 .* No network"):
        SpectrogramStudy(tmp_path, view=view).run(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_profiles_over_bands_and_frames(root, report):
    for machine in report.machines:
        bands, frames = machine.band_profile(), machine.frame_profile()
        assert len(bands) == 128 and len(frames) == machine.aligner.width
        assert np.allclose(frames["seconds"], np.arange(len(frames)) * 0.032)
        assert np.allclose(frames["change"], machine.found.difference.mean(axis=0), atol=1e-4)
        assert np.allclose(frames["control"], machine.control.difference.mean(axis=0), atol=1e-4)
        for profile in (bands, frames):
            assert profile["auc"].between(0, 1).all() and (profile["low"] < profile["high"]).all()
            assert np.allclose((profile["low"] + profile["high"]) / 2, profile["change"])
        titles = [ax.get_title() for ax in machine.figure().axes]
        assert any("over time" in title for title in titles) and any("each band" in title for title in titles)
    for over, key in (("bands", "hz"), ("frames", "seconds")):
        saved = pd.read_csv(root / f"report/{over}.csv")
        assert list(saved)[:3] == ["type", "id", key] and {"change", "control"} <= set(saved)
        assert np.allclose(saved["change"], report.profiles(over)["change"])
    with pytest.raises(DataError, match="bands or frames"):
        report.profiles("clips")


def test_a_fault_in_time_shows_in_the_frame_profile(tmp_path):
    random = np.random.default_rng(0)
    for part, count in (("train/normal", 8), ("test/normal", 6), ("test/anomaly", 6)):
        for i in range(count):
            audio = 0.01 * random.normal(size=32_000)
            if "anomaly" in part:
                audio[16_000:20_000] *= 10  # 20 dB, from 1 s to 1.25 s
            write_audio(tmp_path / f"fan/{part}_id_00_{i:08d}.wav", audio)
    profile = SpectrogramStudy(tmp_path).run().machines[0].frame_profile()
    during = profile["seconds"].between(1.05, 1.2)
    assert (profile.loc[during, "change"] - 20).abs().max() < 1 and (profile.loc[during, "auc"] == 1).all()
    assert profile.loc[~profile["seconds"].between(0.95, 1.3), "change"].abs().max() < 1
    assert profile["control"].abs().max() < 1


def levels(root, machine_type, machine_id, split, label):
    clips = DCASEFolder(root).select(machine_type, split, machine_id, label)
    samples = DCASEFolder(root).samples(machine_type)
    return np.concatenate([batch.mean(axis=2) for _, batch in spectrogram_batches(clips, samples)])


def test_intervals_are_welchs(root, report):
    for machine in report.machines:
        place = root, machine.machine_type, machine.machine_id
        broken, train = levels(*place, "test", 1), levels(*place, "train", 0)
        interval = ttest_ind(broken.astype(float), train.astype(float), equal_var=False).confidence_interval()
        profile = machine.band_profile()
        assert np.allclose(profile["low"], interval.low, atol=1e-4)
        assert np.allclose(profile["high"], interval.high, atol=1e-4)
        assert f"{machine.row()['low']:+.1f} to" in machine.sentence() and "not corrected" in machine.sentence()


def test_exact_p_of_the_top_band(root, report, monkeypatch):
    for machine in report.machines:
        place = root, machine.machine_type, machine.machine_id
        values = np.concatenate([levels(*place, "test", label) for label in (0, 1)])
        auc, alone, together = permutation_test(values, np.repeat([0, 1], 6))
        profile, row = machine.band_profile(), machine.row()
        assert np.allclose(profile["p"], alone) and np.allclose(profile["all_bands_p"], together)
        assert np.allclose(profile["auc"], auc)
        top = int(profile["change"].abs().argmax())
        assert (row["band_p"], row["all_bands_p"]) == (alone[top], together[top])
        assert f"exact p = {alone[top]:.3f}, as one of all bands {together[top]:.3f}" in machine.sentence()
    monkeypatch.setattr(groups_module, "EXACT", 900)  # there are 924 relabellings
    machine = SpectrogramStudy(root, ["fan"]).run().machines[0]
    assert np.isnan(machine.row()["band_p"]) and "exact p" not in machine.sentence()


def test_clicks_and_pauses_of_a_valve_are_told(tmp_path):
    synthesize_machines(tmp_path, ["valve"], 1, 16, 6, 6, seconds=8)
    report = SpectrogramStudy(tmp_path).run(tmp_path / "report")
    row, sentence = report.machines[0].row(), report.machines[0].sentence()
    pictures = {}
    for key, split, label in (("train", "train", 0), ("normal", "test", 0), ("anomaly", "test", 1)):
        clips = DCASEFolder(tmp_path).select("valve", split, label=label)
        pictures[key] = [picture for _, batch in spectrogram_batches(clips, 128_000) for picture in batch]
    model = Intervals.fit(pictures["train"])
    for key in ("normal", "anomaly"):
        told = pd.DataFrame([model.describe(picture) for picture in pictures[key]]).mean()
        assert row[f"click_rate_{key}"] == pytest.approx(told["clicks_per_second"])
        assert row[f"click_shortest_{key}"] == pytest.approx(told["shortest_pause_s"])
        assert row[f"click_longest_{key}"] == pytest.approx(told["longest_pause_s"])
    assert f"Clicks per second: {row['click_rate_anomaly']:.2f} ({row['click_rate_normal']:.2f} in" in sentence
    assert f"AUC {row['interval_auc']:.2f}" in sentence and "time within the clip" not in sentence
    assert pd.read_csv(tmp_path / "report/study.csv")["click_rate_normal"].notna().all()


@pytest.mark.parametrize(
    ("normal", "broken", "said"),
    [
        (0.3, 0.005, "matters in broken clips, but not in normal ones (p = 0.005 broken, 0.300 normal)"),
        (0.005, 0.005, "matters in broken clips, as it does in normal ones"),
        (0.005, 0.3, "matters in normal clips, but not in broken ones"),
        (0.3, 0.3, "does not matter, neither in broken nor in normal clips"),
    ],
)
def test_time_is_judged_beside_normal_clips(report, normal, broken, said):
    machine = next(machine for machine in report.machines if machine.machine_type == "fan")
    other = replace(machine, time_p=(normal, broken))
    assert f"The time within the clip {said}" in other.sentence()


def test_patches_are_the_region(report):
    for machine in report.machines:
        region = machine.found.region()
        assert machine.patches["bins"].sum() == region.sum()
        first = machine.patches.to_dict("records")[0]
        assert region[first["low_mel"] : first["high_mel"], first["start"] : first["stop"]].sum() >= first["bins"]


def test_batches_do_not_matter(root, report):
    other = SpectrogramStudy(root, ["fan"], batch_size=5).run()
    assert np.allclose(other.machines[0].found.difference, report.machines[0].found.difference, atol=1e-9)
    assert np.array_equal(other.machines[0].auc, report.machines[0].auc)


def test_unusable_clips_and_machines_are_named(tmp_path):
    synthesize_machines(tmp_path, ["pump"], 2, 4, 3, 3, seconds=2)
    (tmp_path / "pump/test/normal_id_00_00000000.wav").write_bytes(b"RIFF")
    for path in (tmp_path / "pump/train").glob("*id_02*"):
        path.unlink()
    report = SpectrogramStudy(tmp_path).run()
    assert [machine.machine_id for machine in report.machines] == ["id_00"]
    assert report.machines[0].normal.moments.count == 2
    assert any("1 clip is not usable and takes no part" in note for note in report.notes)
    assert any("id_02 is left out: 0 train" in note for note in report.notes)


def test_priors_match_what_was_found(report, tmp_path):
    prior = MaskPrior.from_study(report, "slider")
    prior.save(tmp_path / "slider.json")
    assert MaskPrior.load(tmp_path / "slider.json") == prior
    bands = [patch["band_hz"] for patch in json.loads((tmp_path / "slider.json").read_text())["patches"]]
    assert bands[0] == [
        round(HTK.hertz[prior.patches[0].low]),
        round(HTK.hertz[prior.patches[0].low + prior.patches[0].bands]),
    ]
    text = json.loads((tmp_path / "slider.json").read_text())
    assert {"band_hz", "seconds", "duty"} <= set(text["patches"][0])
    for strategy in (AudioSpecificStrategy(prior), PerlinStrategy(prior), AudioSpecificStrategy(), PerlinStrategy()):
        masks = strategy.generate(12, (128, 126), seed=3)
        assert masks.shape == (12, 128, 126) and masks.any(axis=(1, 2)).all()
        assert np.array_equal(masks[:4], strategy.generate(4, (128, 126), seed=3))
    assert AudioSpecificStrategy(prior).generate(30).mean() < AudioSpecificStrategy().generate(30).mean() / 4


def test_masks_are_louder_and_quieter_where_patches_are():
    louder, quieter = Patch(20, 6, 30, 1, 4.0), Patch(90, 10, 157, -1, -4.0)
    prior = MaskPrior("fan", 128, 157, (louder, quieter), 60.0, tuple(HTK.hertz), 0.032)
    for strategy in (AudioSpecificStrategy(prior), PerlinStrategy(prior)):
        masks = strategy.generate_signed(8, (128, 157), seed=1)
        assert set(np.unique(masks)) == {-1, 0, 1}
        assert (masks[:, :50] >= 0).all() and (masks[:, 60:] <= 0).all()
        assert np.array_equal(masks != 0, strategy.generate(8, (128, 157), seed=1))


def test_comparison_tells_masks_of_a_prior_from_others(report):
    fan, slider = (MaskPrior.from_study(report, name) for name in ("fan", "slider"))
    shape = (slider.n_mels, slider.frames)
    own = AudioSpecificStrategy(slider).generate_signed(40, shape)
    assert compare_masks(slider, own)["p"].min() > 0.05
    for other in (AudioSpecificStrategy(fan).generate_signed(40, shape), AudioSpecificStrategy().generate(40, shape)):
        assert compare_masks(slider, other)["p"].min() < 0.05
    assert compare_masks(slider, -own).loc["sign", "p"] < 0.05
    for wrong in (own[0], own[:, :, :-1], np.zeros_like(own)):
        with pytest.raises(DataError):
            compare_masks(slider, wrong)


def test_energy_test_holds_its_level():
    random = np.random.default_rng(0)
    p = [energy_test(random.normal(size=(20, 2)), random.normal(size=(25, 2)), 99, i)[1] for i in range(30)]
    assert np.mean(np.array(p) <= 0.05) < 0.2
    assert energy_test(random.normal(size=(30, 2)), random.normal(1.5, 1, (30, 2)), 99)[1] == 0.01


@pytest.mark.parametrize("method", METHODS)
def test_detectors_keep_the_contract(root, tmp_path, method):
    clips = DCASEFolder(root)
    train = [clip.path for clip in clips.select("fan", "train")]
    test = [clip.path for clip in clips.select("fan", "test")]
    checkpoint = train_vqvae(root, "fan", tmp_path / "networks", epochs=1) if method == "vqvae" else ""
    detector = SoundDetector(method, checkpoint=checkpoint).fit(train)
    shutil.rmtree(tmp_path / "networks", ignore_errors=True)  # what was fitted needs it no more
    scores = detector.decision_function(test)
    assert scores.dtype == np.float64 and np.isfinite(scores).all()
    assert np.array_equal(scores[::-1], detector.decision_function(test[::-1]))
    assert np.array_equal(scores[3:4], detector.decision_function(test[3:4]))
    assert np.array_equal(detector.labels_, (detector.decision_scores_ > detector.threshold_).astype(int))
    detector.save(tmp_path)
    assert np.array_equal(SoundDetector.load(tmp_path).decision_function(test), scores)
    assert list(detector.detect(test)["is_anomaly"]) == list(detector.predict(test) == 1)


def test_official_form(root):
    table = evaluate_detector(DCASEFolder(root), lambda _: SoundDetector("pca"))
    fan = table[table["type"] == "fan"]
    assert fan["auc"].iloc[-1] == pytest.approx(fan["auc"].iloc[:-1].mean())
    one = pd.DataFrame({"machine_type": ["a"] * 2, "machine_id": ["b"] * 2, "label": [0, 1], "score": [0.0, np.nan]})
    with pytest.raises(DataError, match="a b"):
        official_table(one)


def test_no_leak(tmp_path):
    aucs = []
    for kind in ("fan", "valve"):
        synthesize_machines(tmp_path, [kind], 1, 12, 30, 30, severity=0, seconds=1, seed=5)
        clips = DCASEFolder(tmp_path, [kind])
        aucs += [evaluate_detector(clips, lambda _, m=m: SoundDetector(m))["auc"].iloc[-1] for m in ("pca", "knn")]
    assert abs(np.mean(aucs) - 0.5) < 0.15


def test_maps_of_single_clips_are_not_constant(root):
    from anomaly_nb.dcase.data import spectrogram_batches

    clips = DCASEFolder(root)
    normal = NormalSound()
    for _, batch in spectrogram_batches(clips.select("fan", "train", "id_00"), 64_000):
        normal.add(batch)
    for _, batch in spectrogram_batches(clips.select("fan", "test", "id_00")[:2], 64_000):
        deviation = normal.deviation(batch[0])
        assert deviation.shape == (128, 126) and deviation.min() >= 0 and deviation.std() > 0


def test_synthesis_is_reproducible_clip_by_clip(root, tmp_path):
    synthesize_machines(tmp_path, ["slider"], 1, 2, 1, 1, seconds=4)
    name = "slider/test/anomaly_id_00_00000000.wav"
    assert (tmp_path / name).read_bytes() == (root / name).read_bytes()
    manifest = pd.read_csv(root / "manifest.csv")
    assert set(manifest.loc[manifest["label"] == 1, "fault"]) == {"bearing", "unbalance", "voltage", "rail", "grease"}


def test_generated_anomalies_need_fitting_masks():
    from anomaly_nb.dcase import VQ_VAE_2Layer

    network = VQ_VAE_2Layer(16, 1, 8, (8, 16), 8).train()
    network(torch.randn(1, 1, 32, 32))
    with pytest.raises(DataError):
        generate_anomalies(network, torch.zeros(2, 1, 32, 32), np.zeros((2, 32, 16), bool))
