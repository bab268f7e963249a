"""Configurations: what the document promises, every key, every refusal."""

import json
from dataclasses import fields

import pytest

from anomaly_nb.core import DataError
from anomaly_nb.dcgan.config import DCGANConfig, explain_config, list_configs, load_config

DOCUMENT = {
    "dataset": {"base_path": "../dataset", "spectrograms_path": "spectrograms/", "spectrograms_metadata": "m.csv"},
    "model": {"latent_dim": 128, "features_g": 256, "features_d": 256, "image_size": 128, "channels": 1},
    "training": {"batch_size": 384, "epochs": 800, "learning_rate": 1e-4, "beta1": 0.5},
    "metrics_and_checkpoints": {
        "csv_write_frequency": 20,
        "detailed_logging_frequency": 40,
        "emergency_checkpoint_frequency": 80,
        "milestone_checkpoint_frequency": 150,
        "milestone_epoch_frequency": 25,
        "emergency_buffer_size": 12,
        "image_samples_per_checkpoint": 20,
        "best_model_improvement_threshold": 0.003,
        "key_epochs_first": 50,
        "key_epochs_last": 100,
    },
    "logging": {"log_level": "INFO", "log_to_file": True, "log_to_console": True, "max_log_size_mb": 50},
    "hardware": {"device": "cuda", "num_workers": 8, "pin_memory": True, "prefetch_factor": 4},
    "convergence": {
        "enabled": True,
        "min_iterations": 4000,
        "check_frequency": 50,
        "patience": 1200,
        "min_improvement": 5e-5,
        "loss_explosion_threshold": 200,
        "grad_norm_threshold": 5000,
    },
    "advanced_metrics": {
        "enabled": True,
        "calculate_fid": True,
        "calculate_is": True,
        "fid_frequency": 5,
        "is_frequency": 5,
        "num_samples_for_metrics": 100,
    },
    "output": {"base_output_dir": "out", "models_dir": "m", "samples_dir": "s", "metrics_dir": "e"},
}


def test_a_file_with_every_documented_key_is_read_as_it_stands(tmp_path):
    path = tmp_path / "production.json"
    path.write_text(json.dumps(DOCUMENT))
    read = load_config(path).to_dict()
    for section, values in DOCUMENT.items():
        assert {key: read[section][key] for key in values} == values


def test_the_documents_numbers():
    config, trial = load_config("config"), load_config("config_test")
    assert config.to_dict()["model"] == dict(latent_dim=100, features_g=64, features_d=64, image_size=128, channels=1)
    assert (config.training.batch_size, config.training.epochs) == (64, 200)
    assert (config.training.learning_rate, config.training.beta1) == (2e-4, 0.5)
    assert (trial.training.epochs, trial.training.batch_size, trial.model.image_size) == (10, 8, 64)
    assert {"config", "config_test", "config_template"} <= set(list_configs())


def test_the_template_explains_every_key_and_equals_the_production_file():
    assert load_config("config_template") == load_config("config") == DCGANConfig()
    for section, keys in load_config().to_dict().items():
        assert list(explain_config()[section]) == list(keys)
        assert all(len(text) > 5 for text in explain_config()[section].values())


@pytest.mark.parametrize(
    ("key", "value", "section"),
    [
        ("epochs", 3, "training"),
        ("batch_size", 5, "training"),
        ("learning_rate", 1e-3, "training"),
        ("latent_dim", 7, "model"),
        ("image_size", 64, "model"),
        ("features_g", 9, "model"),
        ("features_d", 11, "model"),
        ("device", "cuda", "hardware"),
        ("num_workers", 3, "hardware"),
        ("output_dir", "elsewhere", "output"),
        ("ema", 0.9, "recipe"),
    ],
)
def test_each_override_reaches_its_key_and_no_other(key, value, section):
    before, after = load_config().to_dict(), load_config(**{key: value}).to_dict()
    changed = [(s, k) for s in before for k in before[s] if before[s][k] != after[s][k]]
    assert changed == [(section, {"output_dir": "base_output_dir"}.get(key, key))]
    assert after[section][changed[0][1]] == value


@pytest.mark.parametrize("item", [(s.name, f) for s in fields(DCGANConfig) for f in fields(type(s.default))])
def test_absurd_values_of_every_key_name_the_key(item):
    section, key = item[0], item[1].name
    limits = item[1].metadata
    absurd = [[1], {"a": 1}, "" if not limits else "many"]
    if limits:
        absurd += [limits["low"] - 1, limits["high"] + 1, float("nan"), float("inf"), True]
    for value in absurd:
        with pytest.raises(DataError, match=rf"{section}\.{key}"):
            load_config(**{section: {key: value}})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"model": {"latentdim": 3}}', r"model\.latentdim: no such key"),
        ('{"modle": {}}', "'modle' is not one of the sections"),
        ('{"model": 3}', "'model' is not one of the sections"),
        ('{"epochs": 3}', "'epochs' is not one of the sections"),
        ('{"model": {"features_g": 64, // width\n}}', "not JSON"),
        ("[1, 2]", "sections with keys"),
        ("", "not JSON"),
        ('{"training": {"learning_rate": NaN}}', r"training\.learning_rate"),
        ('{"dataset": {"use_dummy_data": true}}', r"dataset\.use_dummy_data"),
        ('{"training": {"epochs": "200"}}', r"training\.epochs is '200'; expected int"),
    ],
)
def test_broken_files_are_refused_by_name(tmp_path, content, message):
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        load_config(path)


def test_missing_files_and_unknown_names(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        load_config(tmp_path / "none.json")
    with pytest.raises(DataError, match="config_template"):
        load_config("config_production")
    (tmp_path / "latin.json").write_bytes(b'{"output": {"samples_dir": "\xff"}}')
    with pytest.raises(DataError, match="not JSON"):
        load_config(tmp_path / "latin.json")


def test_saved_is_read_back(tmp_path):
    config = load_config("config_test", features_d=5, r1=2, max_files_limit=12)
    config.save(tmp_path / "deep" / "c.json")
    assert load_config(tmp_path / "deep" / "c.json") == config
