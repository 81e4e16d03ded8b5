import keras
import pytest

from tfmmcl.errors import InputError
from tfmmcl.models.loading import load_model


def test_a_file_with_code_in_it_is_refused(tmp_path):
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2, output_shape=(3,))(inputs))
    model.save(tmp_path / "model.keras")
    with pytest.raises(InputError, match=r"model\.keras: cannot be loaded \(.*[Ll]ambda") as refused:
        load_model(tmp_path / "model.keras")
    assert "\n" not in str(refused.value)
