"""Models in memory: each loaded once, the one that nobody has used for longest given up for another."""

import asyncio
import gc
from collections import OrderedDict
from dataclasses import dataclass

from perdure.web.gateway.problems import AnswerError
from perdure.web.gateway.settings import Models
from perdure.workspace import Workspace
from perdure.workspace.archive import Archive
from perdure.workspace.pools import weights_of
from perdure.workspace.records import Version

_GIB = 1 << 30


@dataclass(eq=False)
class Held:
    """A model in memory.

    Attributes:
        shop: A view of the workspace that has this model loaded, and no other.
        size: Of its weights, in bytes.
        users: Requests that need it now.
    """

    shop: Workspace
    size: int
    users: int = 0
    loading: "asyncio.Task[None] | None" = None


class Shelf:
    """The loaded models. Versions with the very same weights, as those of one pool, share one.

    Used from one event loop; loading itself happens in a thread. A model in use is never given up.
    """

    def __init__(self, archive: Archive, settings: Models, *, device: str = "cpu") -> None:
        self._archive, self._settings, self._device = archive, settings, device
        self._held: OrderedDict[str, Held] = OrderedDict()  # the least recently used first
        self._keys: dict[str, tuple[str, int]] = {}
        self._turn = asyncio.Lock()  # first come, first served: else a waiting model would never find room
        self._freed = asyncio.Event()

    @property
    def loaded(self) -> list[str]:
        """The ids of the versions whose weights are in memory, the least recently used first."""
        return list(self._held)

    async def take(self, version: Version) -> Held:
        """The model of a version, in use until it is put back.

        Raises:
            AnswerError: It is larger than what may be loaded.
            PerdureError: It cannot be loaded.
        """
        async with self._turn:
            held = await self._place(version)
            held.users += 1
        try:
            if held.loading is not None:
                await asyncio.shield(held.loading)  # who waits may go away; others want it too
        except BaseException:
            self.put_back(held)
            raise
        return held

    def put_back(self, held: Held) -> None:
        """Let go of a model that was taken."""
        held.users -= 1
        self._freed.set()

    def close(self) -> None:
        """Give up every model that nobody uses."""
        for key in [key for key, held in self._held.items() if not held.users]:
            self._held.pop(key).shop.unload()

    async def _place(self, version: Version) -> Held:
        key, size = await self._key(version)
        if key not in self._held:
            await self._make_room(version, size)
            held = Held(Workspace(self._archive, device=self._device), size)
            held.loading = asyncio.create_task(self._load(key, held, version))
            self._held[key] = held
        self._held.move_to_end(key)
        return self._held[key]

    async def _key(self, version: Version) -> tuple[str, int]:
        """The version whose weights it runs, and their size; a manifest is read once."""
        if version.id not in self._keys:
            base = await asyncio.to_thread(weights_of, Workspace(self._archive), version)
            self._keys[version.id] = (base.id, await asyncio.to_thread(lambda: base.manifest.nbytes))
        return self._keys[version.id]

    async def _make_room(self, version: Version, size: int) -> None:
        limit = self._settings.memory_gib
        if limit is not None and size > limit * _GIB:
            needs = f"{version.name} needs {size / _GIB:.1f} GiB, and this server may load {limit:g} GiB"
            raise AnswerError(503, "model_too_large", f"{needs}; give it a backend in gateway.toml")
        while not self._fits(size):
            idle = next((key for key, held in self._held.items() if not held.users), None)
            if idle is None:
                self._freed.clear()
                await self._freed.wait()
                continue
            self._held.pop(idle).shop.unload()
            await asyncio.to_thread(gc.collect)  # its memory is free before the new one's is taken

    def _fits(self, size: int) -> bool:
        limit = self._settings.memory_gib
        total = size + sum(held.size for held in self._held.values())
        return len(self._held) < self._settings.loaded and (limit is None or total <= limit * _GIB)

    async def _load(self, key: str, held: Held, version: Version) -> None:
        try:
            await asyncio.to_thread(held.shop.load, version)
        except BaseException:
            if self._held.get(key) is held:
                del self._held[key]
            raise
        finally:
            held.loading = None
            self._freed.set()
