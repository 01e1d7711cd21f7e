"""Model cards say what the record says, and the hub gets an adapter with its card and nothing of this machine."""

import json
import re
import threading

import huggingface_hub
import pytest
from conftest import ROOT
from loopback_hub import NEW, Hub, Repository

from adept.base.errors import UserError
from adept.commands.main import main
from adept.config.layers import resolve
from adept.runs.record import read_record
from adept.serving.card import model_card, write_card
from adept.serving.hub import push
from adept.serving.load import load, read_config

QUICKSTART = ROOT / "results" / "runs" / "smollm2-135m-movie_reviews-adept-8ec25c7c"


@pytest.fixture
def run(trained):
    """(adapter folder, configuration, record) of the trained run."""
    return trained, read_config(trained), read_record(str(trained.parent.parent), trained.name)


def head_of(card):
    return huggingface_hub.ModelCard(card).data


def test_the_head_names_base_relation_library_data_and_scores():
    record = read_record(str(ROOT / "results"), QUICKSTART.name)
    data = head_of(card := model_card(QUICKSTART, read_config(QUICKSTART), record, license="mit", repository="me/mine"))
    assert (data.base_model, data.base_model_relation) == ("HuggingFaceTB/SmolLM2-135M-Instruct", "adapter")
    assert (data.library_name, data.pipeline_tag, data.license) == ("adept", "text-generation", "mit")
    assert {"adept", "movie_reviews"} <= set(data.tags)
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", record["test"]["accuracy"])
    assert "accuracy | 86.0 (95% 82.7 to 88.8) |" in card  # Wilson's interval of 430 of 500
    assert "13,832 trained parameters" in card and 'snapshot_download("me/mine")' in card
    assert "converted from a 4-bit file" in card


def test_data_from_the_hub_are_named_and_others_are_not(run):
    folder, config, record = run
    assert head_of(model_card(folder, config, record)).datasets is None  # of --data_dir
    of_hub = {**record, "provenance": {**record["provenance"], "data_origin": "hub:nyu-mll/glue/rte"}}
    data = head_of(model_card(folder, config.replace(model="t5-base"), of_hub))
    assert (data.datasets, data.base_model) == ("nyu-mll/glue", "google-t5/t5-base")
    assert (data.eval_results[0].dataset_type, data.eval_results[0].dataset_config) == ("nyu-mll/glue", "rte")


def test_no_number_is_in_a_card_that_the_record_lacks(run):
    folder, config, record = run
    without = model_card(folder, config, None)
    assert head_of(without).eval_results is None and "## Results" not in without and "95%" not in without
    bare = {key: value for key, value in record.items() if key not in ("sizes", "provenance")}
    assert "| accuracy | " in model_card(folder, config, bare) and "95%" not in model_card(folder, config, bare)
    numbers = set(re.findall(r"\d+\.\d+", model_card(folder, config, record).partition("## Results")[2]))
    known = {f"{record['test']['accuracy']:.1f}"} | set(re.findall(r"\d+\.\d+", json.dumps(record["config"])))
    assert len(numbers - known) <= 2  # the interval's bounds


def test_a_base_from_a_local_folder_is_no_hub_id(run):
    data = head_of(card := model_card(*run))
    assert "base_model" not in card.partition("# adept")[0] and data.pipeline_tag == "text2text-generation"
    assert "was a local folder" in card and f'adept.load("{run[0].name}")' in card


def test_the_lines_of_use_answer(run, monkeypatch, capsys):
    folder, config, record = run
    monkeypatch.chdir(folder.parent)
    (code,) = re.findall(r"```python\n(.*?)```", model_card(folder, config, record), re.DOTALL)
    loading, _, answering = code.strip().rpartition("\n")
    names: dict = {}
    exec(loading, names)  # the card's own
    assert eval(answering, names) == load(str(folder)).answer(eval(answering[len("session.answer(") : -1]))


@pytest.mark.parametrize(("file", "library", "relation"), [("config.json", "transformers", "merge"),
                                                          ("adapter_config.json", "peft", "adapter")])  # fmt: skip
def test_an_exported_folders_own_text_stays_below_the_head(run, tmp_path, file, library, relation):
    _, config, record = run
    folder = tmp_path / "exported"
    folder.mkdir()
    (folder / file).write_text("{}")
    card = model_card(folder, config.replace(model="t5-base"), record)
    assert ('from_pretrained("exported")' in card and "AutoModelForSeq2SeqLM" in card) or library == "peft"
    (folder / "README.md").write_text('# Mine\n\n```python\nmodel = load("exported")\n```\n')
    write_card(folder, config.replace(model="t5-base"), record, license="apache-2.0")
    written = (folder / "README.md").read_text()
    data = head_of(written)
    assert (data.library_name, data.base_model_relation, data.license) == (library, relation, "apache-2.0")
    assert '# Mine\n\n```python\nmodel = load("exported")' in written and "## Limits" in written
    assert write_card(folder, config, record).read_text() == written  # a card with a head is its owner's


def test_a_folder_of_neither_kind_is_one_line(run, tmp_path):
    with pytest.raises(UserError, match="is neither an adapter folder"):
        model_card(tmp_path, run[1], None)


# The hub --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch):
    """A hub on loopback that this process asks."""
    server = Hub({"me/public": Repository({NEW: {}}), "faulty/breaks": Repository({}, refusal=(403, "Forbidden"))}, {})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.endpoint)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 8)
    huggingface_hub.close_session()
    yield server
    huggingface_hub.close_session()
    server.shutdown()
    server.server_close()


def test_push_makes_a_private_repository_of_the_adapter_and_its_card(run, hub, capsys):
    folder = run[0]
    assert main(["push", folder.name, "me/rte", "--results_dir", str(folder.parent.parent), "--license", "mit"]) == 0
    assert capsys.readouterr().out.strip() == f"{hub.endpoint}/me/rte"
    repository = hub.repositories["me/rte"]
    files = repository.commits[NEW]
    assert repository.private and files.keys() == {"README.md", "adapter.safetensors", "adapter.json"}
    assert files["adapter.safetensors"] == (folder / "adapter.safetensors").read_bytes()
    assert hub.cards == [files["README.md"].decode()]  # the hub has looked at its head
    assert head_of(hub.cards[0]).license == "mit" and 'snapshot_download("me/rte")' in hub.cards[0]
    asked = [request.path for request in hub.requests if request.method == "POST"]
    assert asked == ["/api/repos/create", "/api/validate-yaml", "/api/models/me/rte/preupload/main",
                     "/api/models/me/rte/commit/main"]  # fmt: skip


def test_what_is_pushed_names_no_folder_of_this_machine_and_answers_elsewhere(run, hub, tmp_path, model_folders):
    push(run[0], "me/rte", run[1], run[2])
    files = hub.repositories["me/rte"].commits[NEW]
    assert b"/" not in files["adapter.json"] and str(run[0].parent).encode() not in b"".join(files.values())
    (tmp_path / "got").mkdir()
    for name, content in files.items():
        (tmp_path / "got" / name).write_bytes(content)
    text = "sentence1: A sentence2: B"
    assert load(str(tmp_path / "got"), model=model_folders["t5"]).answer(text) == load(str(run[0])).answer(text)


def test_the_adapter_of_a_users_own_task_takes_its_task_file_along(write_task, train_task_file, hub, tmp_path):
    assert train_task_file(write_task())[0] == 0
    (description,) = tmp_path.glob("results/runs/*/adapter.json")
    folder = description.parent
    push(folder, "me/jokes", read_config(folder))
    files = hub.repositories["me/jokes"].commits[NEW]
    assert files["task.yaml"] == (folder / "task.yaml").read_bytes()
    assert json.loads(files["adapter.json"])["config"]["task_file"] == "task.yaml"
    assert b"movie" not in files["README.md"] and str(tmp_path).encode() not in b"".join(files.values())


def test_an_exported_folder_goes_up_whole_and_a_model_needs_a_license(run, hub, tmp_path):
    folder, config, record = tmp_path / "model", *run[1:]
    (folder / "deep").mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "deep/file.txt", ".hidden"):
        (folder / name).write_text("{}")
    with pytest.raises(UserError, match=r"holds the base model's weights.*--license ID names it"):
        push(folder, "me/model", config, record)
    with pytest.raises(UserError, match="--license ID names it"):  # an adapter that is the whole model
        push(run[0], "me/model", resolve({"task": "rte", "method": "full"}), record)
    assert hub.requests == []
    push(folder, "me/model", config, record, public=True, license="apache-2.0")
    assert not hub.repositories["me/model"].private
    uploaded = hub.repositories["me/model"].commits[NEW]
    assert uploaded.keys() == {"README.md", "config.json", "model.safetensors", "deep/file.txt"}


def test_export_pushes_what_it_wrote(run, hub, tmp_path, capsys):
    words = ["export", str(run[0]), str(tmp_path / "made"), "--device", "cpu", "--push", "me/made"]
    assert main(words) == 2 and "--license ID names it" in capsys.readouterr().err
    assert not (tmp_path / "made").exists() and hub.requests == []
    assert main([*words, "--license", "apache-2.0"]) == 0
    assert capsys.readouterr().out.strip() == f"{hub.endpoint}/me/made"
    files = hub.repositories["me/made"].commits[NEW]
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= files.keys()
    data = head_of(text := files["README.md"].decode())
    assert (data.library_name, data.license) == ("transformers", "apache-2.0") and "## Results" in text
    assert 'from_pretrained("me/made")' in text and 'from_pretrained("made")' not in text
    assert main([*words[:5], "--public"]) == 2 and "have no effect without --push" in capsys.readouterr().err


def test_what_cannot_be_pushed_is_one_line(run, hub, capsys, tmp_path):
    for repository, line in (
        ("rte", "'rte' is no repository; name it OWNER/NAME"),
        ("me/public", "me/public is there and public: --public"),
        ("faulty/breaks", "the hub did not take faulty/breaks"),
    ):
        with pytest.raises(UserError, match=line) as caught:
            push(run[0], repository, run[1], run[2])
        assert "\n" not in str(caught.value)
    assert hub.repositories["me/public"].commits[NEW] == {}
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "config.json").write_text("{}")
    for words, line in (
        ([str(tmp_path / "exported"), "me/x"], "--run RUN_ID names it"),
        ([str(run[0])], "name the repository"),
        (["nothing", "me/x"], "no adapter 'nothing'"),
    ):
        assert main(["push", *words]) == 2
        err = capsys.readouterr().err
        assert line in err and err.count("\n") == 1


def test_without_a_hub_it_is_one_line(run, hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"the hub did not take me/rte: .*'hf auth login'"):
        push(run[0], "me/rte", run[1], run[2])
