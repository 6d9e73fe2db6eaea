"""Lines that xenstore-ls of Xen 4.17 printed."""

import pytest
from rigs.xenstore_ls import Listed, parse


def test_a_line_is_a_node():
    assert parse('/local/domain/1/store/port = "1"   (n0,r1)\n/tool = ""   (n0)\n') == {
        "/local/domain/1/store/port": Listed(b"1", ["n0", "r1"]),
        "/tool": Listed(b"", ["n0"]),
    }


def test_a_value_comes_back_byte_for_byte():
    [node] = parse('/tool/zz = "a"bc\\001\\xff\\xe9\\n\\tz\\\\"   (n0)').values()
    assert node.value == b'a"bc\x01\xff\xe9\n\tz\\'


def test_what_is_no_node_is_shown():
    with pytest.raises(ValueError, match="xenstore-ls: could not"):
        parse("xenstore-ls: could not access permissions for 1")
