"""What serving and storing look at in an Adapted: its values, whatever made them."""

from typing import Protocol, runtime_checkable

from kshot.data.task import Example, Kind
from kshot.data.template import Template
from kshot.model.classifier import Classifier
from kshot.model.delta import Delta
from kshot.model.demonstrations import Retrieve
from kshot.model.lm import LM
from kshot.model.prefix import Prefix


@runtime_checkable
class Taught(Protocol):
    """The fields of an Adapted (adapted.py says what they are), so that Adapted can stand on top of what handles them."""

    @property
    def lm(self) -> LM: ...

    @property
    def reader(self) -> LM: ...

    @property
    def template(self) -> Template: ...

    @property
    def prefix(self) -> Prefix: ...

    @property
    def delta(self) -> Delta: ...

    @property
    def classifier(self) -> Classifier | None: ...

    @property
    def demonstrations(self) -> tuple[Example, ...]: ...

    @property
    def retrieve(self) -> Retrieve | None: ...

    @property
    def channel(self) -> bool: ...

    @property
    def method(self) -> str: ...

    @property
    def kind(self) -> Kind: ...

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def notes(self) -> tuple[str, ...]: ...
