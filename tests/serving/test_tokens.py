"""Files and headers of tokens; the interceptor is tested with the certificates."""

import pytest

from autosplit.errors import InputError
from autosplit.serving import tokens


@pytest.mark.parametrize(
    "text",
    ["edge secret\n", "edge\n", f"edge {'A' * 64}\n", f"a b {'a' * 64}", f"a {'a' * 64}\n" * 2],
)
def test_a_file_of_tokens_of_another_form_is_refused(tmp_path, text):
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(InputError, match=r"tokens:[12] is no line") as caught:
        tokens.read_tokens(path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic x", "Bearer x y", "x"])
def test_a_header_of_another_form_is_nobodys(header):
    assert tokens.caller_of(header, {"x": tokens.new_token("x")[1].split()[1]}) is None


@pytest.mark.parametrize("name", ["", "a b", "a\n", "#a/b", "é", "a" * 65])
def test_a_client_has_a_plain_name(name):
    with pytest.raises(InputError, match="client's name"):
        tokens.new_token(name)
