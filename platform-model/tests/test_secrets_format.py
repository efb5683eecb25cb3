"""The SOPS format: against files of sops itself, against a second implementation, against tampering."""

import hashlib
import io
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from flotilla_platform.secrets import dotenv_files, yaml_files
from flotilla_platform.secrets.age import parse_identities, unwrap, wrap
from flotilla_platform.secrets.errors import SecretRefused
from flotilla_platform.secrets.keeping import open_file
from flotilla_platform.secrets.sealing import (
    format_of,
    metadata_of,
    open_text,
    reseal_text,
    seal_text,
)
from flotilla_platform.secrets.sops import Rules, decrypt_value, encrypt_value
from flotilla_platform.testing.secret_files import (
    MOMENT,
    NOW,
    CountedEntropy,
    lock,
    make_key,
    plain_data,
    sealed,
    spelled,
    unlock,
    walk,
)

VECTORS = Path(__file__).parent / "sops_vectors"
PUBLISHED = {
    # test/age.key of nobbs/terraform-provider-sops
    "complex.sops.yaml": "AGE-SECRET-KEY-19WSGAJ06R7H5PSVZC3SJQSAUVQ7ETS9D5CWKEDJX00WHZJZP0UYSPPH855",
    "dot.sops.env": "AGE-SECRET-KEY-19WSGAJ06R7H5PSVZC3SJQSAUVQ7ETS9D5CWKEDJX00WHZJZP0UYSPPH855",
    # internal/controller/testdata/sops/keys/age-global.txt of fluxcd/kustomize-controller
    "kubernetes-secret.sops.yaml": (
        "AGE-SECRET-KEY-10U7MAELH09KZU63F65P2TYLN7TQM5X6GSDDCQ4YMUGDS3DS6XZMSTYY2PN"
    ),
}
PLAIN: dict[str, Any] = {
    "complex.sops.yaml": {
        "string_key": "example string",
        "integer_key": 42,
        "float_key": 3.14,
        "boolean_key": True,
        "null_key": None,
        "list_key": ["item1", "item2", 3, False, None],
        "object_key": {
            "nested_string": "nested example",
            "nested_integer": 100,
            "nested_list": ["nested item1", 200],
            "nested_object": {"deeper_string": "deeper example", "deeper_boolean": False},
        },
    },
    "dot.sops.env": {
        "HELLO": "world",
        "SOME_NUMBER": "42",
        "DATABASE_URL": "postgres://localhost:5432/mydb",
    },
    "kubernetes-secret.sops.yaml": {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "global-age-secret", "namespace": "default"},
        "type": "Opaque",
        "stringData": {"key": "global-value"},
    },
}
DOCUMENT = """\
# who may know
kind: Secret
port_unencrypted: 5432
a: hunter2  # the old one
b:
    # of a friend
    c: [1, 2.5, true, null, '']
    text: |
        # no comment
        two lines
deep:
    - name: x
      value: "y # z"
    - last
"""
FLAT = "# who may know\nA=hunter2\n\n#\nB=two\\nlines\nEMPTY=\nC=x=y\n"


@pytest.mark.parametrize("name", PLAIN)
def test_files_that_sops_encrypted_are_opened(name: str) -> None:
    identities = parse_identities(PUBLISHED[name], "published")
    opened = open_text(format_of(VECTORS / name), (VECTORS / name).read_text(), identities)
    assert opened.tree == PLAIN[name]


def test_a_vector_of_sops_own_cipher_test() -> None:
    """`TestDecrypt` and `TestDecryptInvalidAad` of getsops/sops, aes/cipher_test.go."""
    key = b"f" * 32
    said = (
        "ENC[AES256_GCM,data:oYyi,iv:MyIDYbT718JRr11QtBkcj3Dwm4k1aCGZBVeZf0EyV8o=,"
        "tag:t5z2Z023Up0kxwCgw1gNxg==,type:str]"
    )
    assert decrypt_value(said, key, ("bar",)) == "foo"
    with pytest.raises(SecretRefused, match="secret-tampered"):
        decrypt_value(said, key, ("baz",))


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (True, "bool", "True"),
        (False, "bool", "False"),
        (-7, "int", "-7"),
        (1.0, "float", "1"),
        (0.1, "float", "0.1"),
        (3.14e-10, "float", "0.000000000314"),
        (1e22, "float", "10000000000000000000000"),
        (-0.0, "float", "-0"),
        (math.inf, "float", "+Inf"),
        ("ü", "str", "ü"),
        (b"hi", "bytes", "hi"),
    ],
)
def test_values_are_spelled_as_go_spells_them(value: Any, kind: str, text: str) -> None:
    key = bytes(32)
    said = encrypt_value(value, key, ("a", "b"), CountedEntropy())
    assert said.endswith(f",type:{kind}]")
    assert unlock(said, key, "a:b:") == text
    assert decrypt_value(said, key, ("a", "b")) == value


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1])
def test_what_sops_cannot_encrypt_is_refused(value: Any) -> None:
    with pytest.raises(SecretRefused, match="value-unsupported"):
        encrypt_value(value, bytes(32), ("a",), CountedEntropy())


@pytest.mark.parametrize("only", [False, True])
def test_a_second_implementation_opens_what_we_seal(only: bool) -> None:
    _, identity = make_key()
    rules = Rules(encrypted_regex="^(a|b|deep)$", mac_only_encrypted=only)
    text = sealed(DOCUMENT, identity, rules)
    document, metadata = plain_data(text), metadata_of(yaml_files, text)
    key = unwrap(metadata.keys, [identity])
    del document["sops"]
    digest = hashlib.sha512(hashlib.sha256(b"sops").digest() if only else b"")
    expected = plain_data(DOCUMENT)
    for (holder, step, bound_to), (plain, at, _) in zip(
        walk(document), walk(expected), strict=True
    ):
        covered = bound_to.split(":")[0] in {"a", "b", "deep"}
        said = holder[step]
        found = unlock(said, key, bound_to) if covered and said else str(said)
        assert found.encode() == spelled(plain[at])[1]
        digest.update(found.encode() if covered or not only else b"")
    assert unlock(metadata.mac, key, MOMENT) == digest.hexdigest().upper()


@pytest.mark.parametrize("only", [False, True])
def test_we_open_what_a_second_implementation_sealed(only: bool) -> None:
    _, identity = make_key()
    key, entropy, plain = bytes(range(32)), CountedEntropy(), plain_data(DOCUMENT)
    digest = hashlib.sha512(hashlib.sha256(b"sops").digest() if only else b"")
    document = plain_data(DOCUMENT)
    for holder, step, bound_to in walk(document):
        covered = not bound_to.startswith("port_unencrypted")
        digest.update(spelled(holder[step])[1] if covered or not only else b"")
        if covered:
            holder[step] = lock(holder[step], key, bound_to, entropy(32))
    [wrapped] = wrap(key, [identity.recipient])
    document["sops"] = {
        "age": [{"recipient": wrapped.recipient, "enc": wrapped.armor}],
        "lastmodified": MOMENT,
        "mac": lock(digest.hexdigest().upper(), key, MOMENT, entropy(32)),
        "mac_only_encrypted": only,
        "unencrypted_suffix": "_unencrypted",
        "version": "3.9.0",
    }
    out = io.StringIO()
    YAML(pure=True).dump(document, out)
    assert open_text(yaml_files, out.getvalue(), [identity]).tree == plain


@pytest.mark.parametrize(("form", "text"), [(yaml_files, DOCUMENT), (dotenv_files, FLAT)])
def test_a_file_comes_back_with_its_order_and_its_comments(form: Any, text: str) -> None:
    _, identity = make_key()
    said = sealed(text, identity, form=form)
    for word in ("hunter2", "friend", "may know", "lines"):
        assert word not in said
    assert open_text(form, said, [identity]).text == text


def test_a_comment_of_the_plain_part_stays_plain() -> None:
    _, identity = make_key()
    text = "# why\nkind: Secret\nstringData:\n    # hush\n    A: b\n"
    said = sealed(text, identity, Rules(encrypted_regex="^stringData$"))
    assert "# why\nkind: Secret\n" in said
    assert "hush" not in said


def test_setting_one_value_leaves_the_ciphertext_of_the_others() -> None:
    _, identity = make_key()
    before = sealed(DOCUMENT, identity)
    opened = open_text(yaml_files, before, [identity])
    changed = opened.text.replace("hunter2", "hunter3")
    after = reseal_text(yaml_files, changed, opened, now=NOW, entropy=lambda size: b"\7" * size)
    pairs = zip(before.splitlines(), after.splitlines(), strict=True)
    assert [old.split(":")[0].strip() for old, new in pairs if old != new] == ["a", "mac"]
    assert open_text(yaml_files, after, [identity]).text == changed


_names = st.text(min_size=1, max_size=8).filter(lambda name: name.isprintable() and name != "sops")
_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.binary(min_size=1, max_size=20),
)
_documents = st.dictionaries(
    _names,
    st.recursive(
        _values,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=3),
        max_leaves=8,
    ),
    min_size=1,
    max_size=4,
)
_KEY = make_key()[1]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example({"a": "#", "b": ["x #y"], "c": {"012": "012", "yes": "on"}})
@given(_documents)
def test_any_document_comes_back(document: dict[str, Any]) -> None:
    tree = yaml_files.parse("a: 1\n")
    tree.clear()
    tree.update(document)
    text = sealed(yaml_files.emit(tree, None), _KEY)
    found = open_text(yaml_files, text, [_KEY]).tree
    assert found == document
    assert [spelled(h[s]) for h, s, _ in walk(found)] == [
        spelled(h[s]) for h, s, _ in walk(document)
    ]


_SEALED = {
    "x.yaml": sealed(DOCUMENT.replace(", null, ''", ""), _KEY),
    "x.env": sealed(FLAT.replace("EMPTY=\n", ""), _KEY, form=dotenv_files),
    "manifest.yaml": sealed(
        "apiVersion: v1\nkind: Secret\nstringData:\n    A: hunter2\n    B: two\n",
        _KEY,
        Rules(encrypted_regex="^(data|stringData)$"),
    ),
}


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.sampled_from(sorted(_SEALED)), st.integers(0, 10_000), st.integers(1, 255))
def test_any_changed_byte_is_refused_or_changes_no_value(
    tmp_path: Path, name: str, place: int, change: int
) -> None:
    content = bytearray(_SEALED[name].encode())
    content[place % len(content)] ^= change
    file = tmp_path / name
    file.write_bytes(content)
    expected = open_text(format_of(file), _SEALED[name], [_KEY]).tree
    try:
        found = open_file(file, [_KEY]).tree
    except SecretRefused as error:
        assert "hunter2" not in str(error)
    else:
        assert [h[s] for h, s, _ in walk(found)] == [h[s] for h, s, _ in walk(expected)]


def _swapped(text: str) -> str:
    a, b = (next(line for line in text.splitlines() if f"    {name}:" in line) for name in "AB")
    return text.replace(a, "~").replace(b, a).replace("~", b)


@pytest.mark.parametrize(
    ("change", "slug"),
    [
        (lambda text: text.replace("    A: ", "    Z: "), "secret-tampered"),
        (_swapped, "mac-mismatch"),
        (lambda text: text.replace("apiVersion: v1", "apiVersion: v2"), "mac-mismatch"),
        (lambda text: text.replace("2026-05-17", "2026-05-18"), "secret-tampered"),
        (lambda text: text.replace("mac: ENC", "mac: ''\n    x: ENC"), "mac-missing"),
        (lambda text: text.replace("-----BEGIN AGE", "-----BEGIN BGE"), "secret-tampered"),
        (lambda text: text.replace("recipient: age1", "recipient: age1q"), "recipient-invalid"),
        (lambda text: text.replace("stringData)$", "nothing)$"), "mac-mismatch"),
        (lambda text: text.replace("encrypted_regex:", "x:"), "not-encrypted"),
        (lambda text: text.replace("\nsops:", "\nsoaps:"), "not-encrypted"),
        (lambda text: text + "---\na: b\n", "document-unsupported"),
        (lambda text: text.replace("    A: ", "    A: &x ") + "y: *x\n", "document-unsupported"),
        (lambda text: text.replace("kind:", "kind: a\nkind:"), "yaml-invalid"),
        (lambda text: text.replace("v1", "[" * 40 + "]" * 40), "document-unsupported"),
    ],
)
def test_tampering_is_refused_with_a_code_that_discloses_nothing(change: Any, slug: str) -> None:
    text = change(_SEALED["manifest.yaml"])
    assert text != _SEALED["manifest.yaml"]
    with pytest.raises(SecretRefused) as refusal:
        open_text(yaml_files, text, [_KEY])
    assert refusal.value.slug == slug
    assert str(refusal.value).endswith(f"({slug})")
    assert "hunter2" not in str(refusal.value)
    assert refusal.value.__cause__ is None


def test_another_key_does_not_open_a_file() -> None:
    _, stranger = make_key()
    with pytest.raises(SecretRefused, match="identity-missing"):
        open_text(yaml_files, _SEALED["x.yaml"], [stranger])
    with pytest.raises(SecretRefused, match="identity-missing"):
        open_text(yaml_files, _SEALED["x.yaml"], [])


def test_a_stranger_who_names_himself_the_recipient_opens_nothing() -> None:
    _, stranger = make_key()
    text = _SEALED["x.yaml"].replace(_KEY.recipient, stranger.recipient)
    with pytest.raises(SecretRefused, match="secret-tampered"):
        open_text(yaml_files, text, [stranger])


def test_each_of_several_recipients_opens_a_file() -> None:
    identities = [make_key()[1] for _ in range(3)]
    text = seal_text(
        yaml_files,
        DOCUMENT,
        recipients=[identity.recipient for identity in identities],
        rules=Rules(),
        now=NOW,
        entropy=CountedEntropy(),
    )
    for identity in identities:
        assert open_text(yaml_files, text, [identity]).text == DOCUMENT


def test_nothing_that_holds_secrets_shows_them() -> None:
    text, identity = make_key()
    opened = open_text(yaml_files, sealed(DOCUMENT, identity), [identity])
    assert "hunter2" not in repr(opened)
    assert text not in repr(identity)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (Rules(), [("a",), ("a", "b")]),
        (Rules(unencrypted_suffix="_x"), [("a",), ("a_unencrypted",)]),
        (Rules(encrypted_suffix="_s"), [("a_s",), ("a_s", "b")]),
        (Rules(encrypted_regex="^data$"), [("data", "x")]),
        (Rules(unencrypted_regex="^data$"), [("dat",), ("a", "x")]),
    ],
)
def test_rules_say_what_is_encrypted_by_the_names_of_a_path(given: Rules, taken: list[Any]) -> None:
    paths = [
        *taken,
        *({("a_unencrypted",)} if given == Rules() else set()),
        *({("a_x", "b")} if given.unencrypted_suffix else set()),
        *({("data",)} if given.unencrypted_regex else set()),
        *({("a",), ("x", "dat")} if given.encrypted_suffix or given.encrypted_regex else set()),
    ]
    assert [path for path in paths if given.covers(path)] == taken


def test_two_rules_are_none() -> None:
    with pytest.raises(SecretRefused, match="rule-invalid"):
        Rules(encrypted_regex="a", encrypted_suffix="b")
    with pytest.raises(SecretRefused, match="rule-invalid"):
        Rules(encrypted_regex="(")
