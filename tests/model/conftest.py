"""What the tests of the model share."""

import pytest

from tests.model.tiny_encoders import ENCODERS, save_encoder


@pytest.fixture(scope="session")
def bert(tmp_path_factory) -> str:
    """Folder of a tiny random BERT."""
    return save_encoder(ENCODERS["bert"][0], tmp_path_factory.mktemp("bert"))
