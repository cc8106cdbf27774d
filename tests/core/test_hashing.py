from twocans_core.hashing import hash_of


def test_a_text_has_the_same_bits_for_ever():
    assert hash_of("") == 0xE4A6A0577479B2B4
    assert hash_of("client\nserver:5000") == 0x7FDC84E502D9A24B
