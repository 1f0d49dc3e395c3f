"""The part of a workspace that runs its versions."""

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from perdure.errors import RefusedError
from perdure.models import Layout, build, load_processor
from perdure.models.loading import holds_encoder, outline
from perdure.workspace.opened import Opened
from perdure.workspace.pools import Answering, answering, weights_of
from perdure.workspace.records import Version

if TYPE_CHECKING:
    from perdure.workspace.workspace import Workspace


class Running(Opened):
    """Versions as models."""

    def load(self, ref: "str | Version", *, fresh: bool = False) -> tuple[Any, Any]:
        """A version as a running model and its tokenizer, every weight verified by hash.

        Args:
            ref: Which; of one with a pool, the weights alone, as for requests that no group answers.
            fresh: Do not hand out the model that is loaded already.
        """
        version = weights_of(cast("Workspace", self), self.version(ref))
        if fresh or self._loaded is None or self._loaded[0] != version.id:
            self._loaded = None  # the old model's memory is free before the new one's is taken
            tensors = self.archive.tensors(version)
            with self._side_files(version) as folder:
                model, tokenizer = build(folder, tensors, device=self.device)
            self._loaded = (version.id, model, tokenizer)
        return self._loaded[1], self._loaded[2]

    def answering(self, ref: "str | Version", text: str) -> AbstractContextManager[Answering]:
        """What answers a request: the model of a version, with the adapter of the request's group while open.

        Args:
            ref: Which version.
            text: The request as it was written, without a chat template.
        """
        self.require_text("asking")
        return answering(cast("Workspace", self), self.version(ref), text)

    def unload(self) -> None:
        """Let go of the loaded model."""
        self._loaded = None

    def layout(self, ref: "str | Version") -> Layout:
        """How the model of a version is built, from its config alone; no weight is read."""
        with self._side_files(self.version(ref)) as folder:
            return outline(folder)

    @property
    def is_encoder(self) -> bool:
        """Whether the model turns images or texts into features, and writes nothing."""
        if self._encoder is None:
            with self._side_files(self.version("v0")) as folder:
                self._encoder = holds_encoder(folder)
        return self._encoder

    def require_text(self, doing: str) -> None:
        """Check that the model writes text.

        Raises:
            RefusedError: It is an encoder.
        """
        if self.is_encoder:
            raise RefusedError(
                f"{doing} takes a model that writes text, and this workspace's is an encoder: it learns labelled sets "
                "(perdure tune SET) and is probed on others (perdure concepts add SET)"
            )

    def processor(self, ref: "str | Version") -> Any | None:
        """What turns images and text into the inputs of a version's model; None where it reads text alone."""
        with self._side_files(self.version(ref)) as folder:
            return load_processor(folder)

    @contextmanager
    def _side_files(self, version: Version) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self.folder / "tmp") as scratch:
            for name, data in self.archive.side_files(version).items():
                (Path(scratch) / name).write_bytes(data)
            yield Path(scratch)
