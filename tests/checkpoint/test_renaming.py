from detrex.checkpoint.renaming import Renaming


def test_numbers_are_kept_and_the_rest_of_the_name_follows():
    renaming = Renaming([("a.#.b.#.", "x.#.#."), ("a.", "y.")])
    assert renaming("a.12.b.3.weight") == "x.12.3.weight"
    assert renaming("a.q") == "y.q"
    assert renaming("b.a.q") is None


def test_dots_are_dots_and_entries_count_in_order():
    assert Renaming([("a.b", "x")])("aXb") is None
    assert Renaming([("a.norm.", "n."), ("a.", "c.")])("a.norm.bias") == "n.bias"


def test_the_inverse_goes_back():
    renaming = Renaming([("enc.#.norm1.", "encoder.#.n."), ("enc.#.", "encoder.#.rest.")])
    for name in ("enc.7.norm1.bias", "enc.0.linear.weight"):
        assert renaming.inverse()(renaming(name)) == name
