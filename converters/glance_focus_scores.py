"""What a Glance and Focus network answers after each look, by the runtime's own runner, and torch beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from converters.errors import ConversionError
from converters.glance_focus_exits import HELD_OUT, MEASURED
from converters.glance_focus_int8 import ENCODERS
from edge_runtime.backends import BackendOptions, open_backend
from edge_runtime.bundle import Bundle
from edge_runtime.early_exit import Array, EarlyExitRunner, shrink
from edge_runtime.early_exit_backend import EarlyExitBackend, ProgramParts
from edge_runtime.exit_records import LookParts
from edge_runtime.preprocess import preprocess
from zoo.focus_patches import PolicyPlaces
from zoo.gfnet import GFNet
from zoo.gfnet_views import Views
from zoo.pictures import Split

HELD_OUT_SCENES = 4  # of each picture: other places and clutter; more take longer and are much alike
BATCH = 100
MOST_CALIBRATION_IMAGES = 200  # of each encoder
MIN_AGREEMENT = 0.99  # a place on the border of two pixels may round to the other one and move a patch by a pixel
MAX_TYPICAL_ERROR = 1e-3  # of the largest logit; the median over pictures, for the same reason


class SequenceScores:
    """Shows held-out and test pictures to a bundle's parts, all looks at each.

    Args:
        model: the reference.
        views: makes scenes.
        splits: of the pictures.
        held_out_scenes: of each held-out picture; of a test picture it is one, and so where pictures are shown as
            they are.
        threads: of the engine.
        report: gets single sentences.
    """

    def __init__(
        self, model: GFNet, views: Views, splits: Mapping[str, Split], held_out_scenes: int, threads: int,
        report: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._model, self._views, self._splits = model, views, splits
        self._threads, self._report = threads, report
        self.scenes = views.variants(held_out_scenes)
        """Variants of each held-out picture."""
        self.seen: dict[str, list[Array]] = {name: [] for name in ENCODERS}
        """What the encoders saw on calib: glances, and patches where the policy put them."""

    def play(
        self, bundle: Bundle, engine: str, parts: LookParts, *, splits: tuple[str, ...] = (), scenes: int | None = None,
        check: bool = False, calibrate: bool = False,
    ) -> dict[str, np.ndarray]:  # fmt: skip
        """Split -> scores (looks, scenes of each picture, pictures, classes) of all looks.

        Args:
            bundle: has the programs, and a setting "all".
            splits: none named: all that are held out or measured.
            scenes: of each held-out picture; None: as many as exits are solved on.
            check: compare the first scene of each picture with torch.
            calibrate: keep what the encoders see on calib.
        Raises:
            ConversionError: the engine differs from torch.
        """
        exits = bundle.manifest.exits
        assert exits is not None
        backend = open_backend(engine, bundle, BackendOptions(self._threads))
        assert isinstance(backend, EarlyExitBackend)
        recorder, side = _Recorder(backend.parts(parts.glance)), self._model.design.picture
        runner = EarlyExitRunner(recorder, exits, exits.setting("all"), (side, side), len(bundle.manifest.labels))
        found = {}
        for name in splits or sorted({*HELD_OUT, *MEASURED} & set(self._splits)):
            if not len(self._splits[name]):
                continue
            recorder.images = self.seen if calibrate and name == "calib" else None
            variants = self.scenes[:scenes] if name in HELD_OUT else range(1)
            where = f"{engine}: {name}" if check else None
            rows = [self._scores(runner, recorder, bundle, name, v, None if v else where) for v in variants]
            found[name] = np.stack(rows, 1)
        backend.close()
        return found

    def _scores(
        self, runner: EarlyExitRunner, recorder: _Recorder, bundle: Bundle, split: str, variant: int, where: str | None
    ) -> np.ndarray:
        """One scene of each picture (looks, pictures, classes); `where` names what is compared with torch."""
        rows, expected = [], []
        names = self._splits[split].names
        for at in range(0, len(names), BATCH):
            inputs = []
            for picture in self._views.evaluation(names[at : at + BATCH], variant):
                preprocess(picture, bundle.spec, runner.input.shape[2:], out=runner.input)
                recorder.scores.clear()
                runner.run()
                rows.append(np.stack(recorder.scores))
                inputs.append(runner.input.copy())
            if where is not None:
                expected.append(self._torch_scores(np.concatenate(inputs)))
        scores = np.stack(rows, 1)
        if where is not None:
            self._require_parity(scores, np.concatenate(expected, 1), where)
        return scores

    @torch.no_grad()
    def _torch_scores(self, pictures: np.ndarray) -> np.ndarray:
        """The reference (looks, pictures, classes) on the runtime's own glances."""
        glances = np.zeros((len(pictures), 3, *(self._model.design.patch,) * 2), np.float32)
        for index in range(len(pictures)):
            shrink(pictures[index : index + 1], glances[index : index + 1])
        looks = self._model.looks(
            torch.from_numpy(glances), torch.from_numpy(pictures), PolicyPlaces(self._model.policy)
        )  # fmt: skip
        return np.stack([look.logits.numpy() for look in looks])

    def _require_parity(self, found: np.ndarray, expected: np.ndarray, where: str) -> None:
        agreement = float((found.argmax(2) == expected.argmax(2)).mean())
        error = np.abs(found - expected).max(2) / np.abs(expected).max(2).clip(1e-6)
        typical = float(np.median(error))
        if agreement < MIN_AGREEMENT or not typical <= MAX_TYPICAL_ERROR:
            raise ConversionError(
                f"{where}: the engine agrees with torch on {agreement:.2%} of the answers (expected at least "
                f"{MIN_AGREEMENT:.0%}) with a typical error of {typical:.1e} (expected at most "
                f"{MAX_TYPICAL_ERROR:.0e}); the bundle is not written"
            )
        self._report(f"{where}: agreement with torch {agreement:.2%}, typical error {typical:.1e}")


class _Recorder:
    """Parts that keep the scores of each look, and on demand what the encoders see."""

    def __init__(self, parts: ProgramParts) -> None:
        self._parts, self.scores = parts, list[Array]()
        self.place, self.close = parts.place, parts.close
        self.images: dict[str, list[Array]] | None = None
        """Encoder -> its pictures (1, 3, patch, patch); None keeps nothing."""

    def encode(self, look: int, image: Array) -> tuple[Array, Array]:
        """As the parts'; keeps a copy of the picture where that is wanted."""
        if self.images is not None and len(kept := self.images[ENCODERS[look > 0]]) < MOST_CALIBRATION_IMAGES:
            kept.append(image.copy())
        return self._parts.encode(look, image)

    def answer(self, look: int, vector: Array, memory: Array) -> tuple[Array, Array]:
        """As the parts'; keeps a copy."""
        scores, memory = self._parts.answer(look, vector, memory)
        self.scores.append(scores[0].copy())
        return scores, memory
