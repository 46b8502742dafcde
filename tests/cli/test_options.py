"""What a command is told: options, files and a TOML file, checked before anything costs time."""

import json
from pathlib import Path

import pytest

from kdprompt import PromptTemplate, QueryError, Settings, TemplateError
from kdprompt.cli.app import app, main
from kdprompt.cli.checks import check_device, check_file, check_folder
from kdprompt.cli.config import hoist_config, read_config
from kdprompt.cli.pools import Keys, read_pool
from kdprompt.cli.prompts import PromptOptions, load_tokenizer
from kdprompt.errors import MissingKeyError
from kdprompt.objective.reader_profile import find_profile
from kdprompt.pool.jinja_template import JinjaTemplate
from kdprompt.pool.records import Demonstration
from support import invoke

ROWS = [{"text": f"{'hot' if i % 2 else 'cold'} day {i}", "label": "sun" if i % 2 else "snow"} for i in range(12)]


@pytest.fixture
def pool(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "pool.csv"
    path.write_text("text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in ROWS))
    return path


KEYS = ("--input-key", "text", "--output-key", "label")


# -- keys ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (Keys(["text"], ["lable"]), "no key 'lable', but 'label'"),
        (Keys(["text"]), r"no example of .*pool.csv has a value for 'output'; its keys are \['text', 'label'\]"),
        (Keys(["text"], ["label"], id="lable"), "has a value for 'lable'; did you mean --id-key label"),
        (Keys(["txt"], ["label"]), r"line 2\) has no input key 'txt'.*Did you mean 'text'"),
        (Keys(["text"], ["label"], task="topic"), "has a value for 'topic'.*--task-key"),
    ],
)
def test_a_key_that_names_nothing_is_an_error_that_says_what_there_is(pool, keys, message):
    with pytest.raises(MissingKeyError, match=message):
        read_pool(pool, keys)


def test_a_pool_without_outputs_is_one_that_was_asked_for(pool):
    assert [d.output for d in read_pool(pool, Keys(["text"], no_outputs=True))] == [None] * 12
    with pytest.raises(ValueError, match="contradict"):
        Keys(outputs=["x"], no_outputs=True).schema()


# -- what is wrong is known before the work -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (("--k", "13"), ValueError, "k must be at most the number of distinct examples"),
        (("--k", "two"), ValueError, "--k must be a whole number from 0 or 'auto', got 'two'"),
        (("--permit", "sum"), QueryError, "--permit 'sum' is not in the pool"),
        (("--permit", "snows"), QueryError, "did you mean 'snow'"),
        (("--order", "nearest"), None, "nearest"),
        (("--output", "."), OSError, "is a folder"),
        (("--output", "pool.csv/x"), OSError, "is a file, so nothing can be written"),
        (("--device", "cudda"), ValueError, "--device 'cudda' is no device"),
        (("--budget", str(10**23)), ValueError, r"^--budget: Input should be less than .*, got 1000*$"),
        (("--profile", "~nobody-of-this-name"), OSError, "no home folder of '~nobody-of-this-name' is known"),
        (
            ("--reader", "python:broken:x"),
            ValueError,
            "'python:broken:x' cannot be imported: SyntaxError: .*broken.py, l",
        ),
        (("--reader", "python:failing:x"), ValueError, "'python:failing:x' cannot be imported: ZeroDivisionError"),
        (("--tokenizer", "pool.csv"), ValueError, "--tokenizer 'pool.csv' cannot be loaded"),
        (("--template", "lable.txt"), TemplateError, "has no attribute 'lable'"),
        (("--instruction", "x", "--template", "t.txt"), TemplateError, "never shows {{ instruction }}"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_option_is_named_before_a_model_is_loaded(pool, monkeypatch, options, error, message):
    def refuse(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("kdprompt.pool.sentence_transformer._load", refuse)
    Path("lable.txt").write_text("{% for e in examples %}{{ e.input }}{{ e.lable }}{% endfor %}{{ input }}")
    Path("t.txt").write_text("{% for e in examples %}{{ e.input }} {% endfor %}{{ input }}")
    Path("broken.py").write_text("def (:\n")
    Path("failing.py").write_text("1 / 0\n")
    command = ("select", "--pool", pool, *KEYS, "--query", "x", "--k", "2", *options)
    if error is None:
        result = invoke(*command)
        assert result.exit_code == 2 and message in result.stderr
        return
    with pytest.raises(error, match=message):
        invoke(*command)


def test_a_seed_that_no_generator_takes_is_refused(pool):
    for seed in (str(10**23), "-1"):
        result = invoke("drift", pool, pool, "--seed", seed)
        assert result.exit_code == 2 and "Invalid value for '--seed': Input should be" in result.stderr


def test_what_pydantic_refuses_is_said_in_plain_words(pool, monkeypatch, capsys):
    reader = ("--reader", "python:builtins:str", "--k", str(10**30))
    monkeypatch.setattr("sys.argv", ["kdprompt", "profile", "--pool", str(pool), *KEYS, *reader])
    with pytest.raises(SystemExit) as left:
        main()
    said = capsys.readouterr().err
    assert left.value.code == 2 and said.startswith("error: k") and "pydantic" not in said, said


def test_places_that_can_be_written_are_taken(tmp_path):
    check_file(tmp_path / "new" / "deep" / "file")
    check_file(Path("/dev/null"))
    check_folder(tmp_path / "new")
    check_device("cpu")
    check_device(None)


# -- templates and tokenizers -------------------------------------------------------------------------------------

SHOWN = [Demonstration(id=str(i), input=f"in {i}", output=f"out {i}", fields={"note": f"n{i}"}) for i in range(2)]
HOSTILE = ("{{ 7 * 7 }}", "{% raw %}", "{input}", "{# x #}", "a\r\nb\n")
SOURCE = "{{ instruction }}|{% for e in examples %}[{{ e.input }}={{ e.output }}]{% endfor %}{{ input }}"


@pytest.mark.parametrize("value", HOSTILE)
def test_a_template_puts_values_in_as_they_are(value):
    template = JinjaTemplate(source=SOURCE, instruction=value)
    shown = [Demonstration(id="1", input=value, output=value)]
    assert template.text(shown, value) == f"{value}|[{value}={value}]{value}"
    assert template.render(shown[0]) == f"[{value}={value}]"
    assert Settings(template=template).template is template


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (SOURCE + "{{ question }}", "'question' is undefined"),
        (SOURCE + "{% for e in examples %}{{ lable }}{% endfor %}", "'lable' is undefined"),
        ("{{ input }}", "never shows the inputs of"),
        ("{% for e in examples %}{{ e.input }}{% endfor %}", "never shows {{ input }}"),
        (SOURCE + "{{ ''.__class__.__mro__ }}", "cannot be filled"),
        (SOURCE + "\n\n{% for %}", "line 3 is no jinja2"),
        (SOURCE + "{question}", r"would print {question} as it stands"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused_at_once(source, message):
    with pytest.raises(TemplateError, match=message):
        JinjaTemplate(source=source)


def test_a_key_that_an_example_lacks_is_named():
    template = JinjaTemplate(source=SOURCE + "{% for e in examples %}{{ e.note }}{% endfor %}")
    assert template.text(SHOWN, "q").endswith("qn0n1")
    with pytest.raises(TemplateError, match="has no attribute 'note'"):
        template.text([Demonstration(id="1", input="a", output="b")], "q")


def test_a_template_without_the_input_is_refused():
    with pytest.raises(TemplateError, match=r"would print {question} as it stands"):
        PromptTemplate(demonstration="Q: {question} A: {output}")
    with pytest.raises(TemplateError, match="the template of a query"):
        PromptTemplate(query="Q: {text}")
    assert PromptTemplate(demonstration='{"q": "{input}", "x": {y}}', query="{}{input}").query == "{}{input}"


@pytest.mark.usefixtures("embedder")
def test_a_tokenizer_counts_the_tokens_of_a_budget():
    from kdprompt.pool.sentence_transformer import find_packaged_model

    folder = find_packaged_model()
    count = load_tokenizer(str(folder))
    assert count("hello world") == load_tokenizer(str(folder / "tokenizer.json"))("hello world") == 2
    settings = PromptOptions(k="3", budget=9, tokenizer=str(folder)).settings()(Settings(delta=0.1))
    assert (settings.k, settings.budget, settings.delta, settings.count_tokens("hello world")) == (3, 9, 0.1, 2)


# -- one file for all of it ---------------------------------------------------------------------------------------


def commands():
    import typer

    return typer.main.get_command(app).commands


def test_a_file_sets_options_and_flags_win(pool):
    Path("kdprompt.toml").write_text(
        'pool = "pool.csv"\ninput-key = "text"\noutput_key = ["label"]\n[select]\nquery = "x"\nk = 99\nstatic = false\n'
    )
    found = read_config(Path("kdprompt.toml"), commands())
    assert found["select"] == {
        "pool": "pool.csv", "input_key": ["text"], "output_key": ["label"], "query": ["x"], "k": 99, "static": False,
    }  # fmt: skip
    assert found["profile"]["input_key"] == ["text"] and "query" not in found["profile"] and not found["demo"]
    with pytest.raises(ValueError, match=r"k must be at most .* got 99"):
        invoke("select", "--config", "kdprompt.toml")
    with pytest.raises(ValueError, match=r"k must be at most .* got 98"):
        invoke("--config=kdprompt.toml", "select", "--k", "98")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[select]\nbudgte = 3", "select has no option 'budgte'; did you mean 'budget'"),
        ("budgte = 3", "no command has an option 'budgte'; did you mean 'budget'"),
        ("[selekt]\nk = 3", "there is no command 'selekt'; did you mean 'select'"),
        ("[select]\nk = [3]", "select.k must be a text or a number, got"),
        ("[select]\nstatic = 1", "static must be true or false, got 1"),
        ("[select]\nquery = [{}]", "query must be a text or a number, or a list of them"),
        ("k = ", "is not TOML"),
    ],
)
def test_what_a_file_says_wrong_is_named(tmp_path, text, message):
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_config(path, commands())


def test_files_of_options_may_begin_with_a_byte_order_mark_and_are_named_where_they_are_no_utf_8(tmp_path):
    marked, other = tmp_path / "marked", tmp_path / "other"
    marked.write_bytes(b"\xef\xbb\xbfk = 3\n")
    assert read_config(marked, commands())["select"] == {"k": 3}
    marked.write_bytes(b'\xef\xbb\xbf{"name": "mine", "follow": 1}')
    assert find_profile(str(marked)).name == "mine"
    other.write_bytes('name = "é"'.encode("latin-1"))
    for read in (lambda: read_config(other, commands()), lambda: find_profile(str(other))):
        with pytest.raises(ValueError, match=r"other is not UTF-8 \(.*, byte 8\); save the file as UTF-8"):
            read()


def test_an_option_may_have_the_name_of_a_command(tmp_path):
    path = tmp_path / "{x}.toml"
    path.write_text('profile = "mine.json"\n')
    found = read_config(path, commands())
    assert found["select"] == {"profile": "mine.json"} and found["profile"] == {}
    path.write_text('profile = "mine.json"\nbudgte = 1\n')
    with pytest.raises(ValueError, match="'budgte'"):
        read_config(path, commands())


def test_the_file_may_be_named_behind_the_command():
    assert hoist_config(["select", "--k", "2", "--config", "c"]) == ["--config", "c", "select", "--k", "2"]
    assert hoist_config(["select", "--config=c"]) == ["--config=c", "select"]
    assert hoist_config(["select", "--", "--config", "c"]) == ["select", "--", "--config", "c"]


def test_the_version_is_said():
    import kdprompt

    assert invoke("--version").stdout == f"kdprompt {kdprompt.__version__}\n"


# -- the whole road -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("embedder")
def test_a_pool_is_built_once_and_selected_from(pool, monkeypatch):
    Path("queries.txt").write_text("hot night\n\ncold night\n")
    Path("t.jinja").write_text(
        "{{ instruction }}{% for e in examples %}\n{{ e.text }} -> {{ e.label }}{% endfor %}\n{{ input }} ->"
    )
    shown = ("--queries", "queries.txt", "--k", "2", "--messages", "--template", "t.jinja", "--instruction", "Say it.")
    direct = invoke("select", "--pool", pool, *KEYS, *shown, "--output", "direct.jsonl")
    assert direct.exit_code == 0, direct.output
    assert invoke("build", pool, *KEYS, "-o", "pool.kd").exit_code == 0
    embedded = []
    from kdprompt import SentenceTransformerEmbedder

    encode = SentenceTransformerEmbedder._encode
    monkeypatch.setattr(
        SentenceTransformerEmbedder,
        "_encode",
        lambda self, texts, *a: embedded.extend(texts) or encode(self, texts, *a),
    )
    built = invoke("select", "--pool", "pool.kd", *shown, "--output", "-")
    assert built.exit_code == 0 and {"hot night", "cold night"} <= set(embedded)
    assert not {row["text"] for row in ROWS} & set(embedded)
    rows = [json.loads(line) for line in Path("direct.jsonl").read_text().splitlines()]
    assert [json.loads(line) for line in built.stdout.splitlines() if line.startswith("{")] == rows
    first, texts = rows[0], [(row["text"], row["label"]) for row in rows[0]["examples"]]
    assert first["prompt"] == "Say it.\n" + "\n".join(f"{text} -> {label}" for text, label in texts) + "\nhot night ->"
    assert first["messages"][0] == {"role": "system", "content": "Say it."}
    assert first["messages"][-1] == {"role": "user", "content": "hot night"} and len(first["messages"]) == 6
    with pytest.raises(ValueError, match="holds its keys and its embedder already"):
        invoke("select", "--pool", "pool.kd", "--query", "x", "--model", "other")


@pytest.mark.usefixtures("embedder")
def test_the_doctor_reads_any_keys(pool):
    result = invoke("doctor", "--pool", pool, *KEYS, "--fail-on", "never")
    assert result.exit_code == 0 and "12 examples, 2 outputs" in result.stdout
