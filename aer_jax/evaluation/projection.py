"""Principal component analysis of features, in whose coordinates linear models are fitted.

A penalised optimum lies in the span of the clips. With up to `EXACT` clips all of their axes are used, and the fit is
exact. With more, the `AXES` leading ones of a sample are: memory and time of a fit then grow with the number of clips
alone, not with the number of features (Williams and Seeger, 2001, the Nyström method).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

EXACT = 4096  # clips up to which the fit is exact, and the size of the sample where there are more
AXES = 1024  # of a sample

# ids -> (positions [b] among them, features [b, F]) in blocks, in any order, each clip once.
FeatureBlocks = Callable[[Sequence[str]], Iterator[tuple[np.ndarray, np.ndarray]]]


@dataclass(frozen=True)
class Projection:
    """x -> ((x - mean) / deviation * scale) axes.

    Attributes:
        mean_f, deviation_f: of the clips that gave the axes.
        scale_f: what each standardised feature is multiplied by.
        axes_fr: orthonormal.
    """

    mean_f: np.ndarray
    deviation_f: np.ndarray
    scale_f: np.ndarray
    axes_fr: np.ndarray

    def __call__(self, features_nf: np.ndarray) -> np.ndarray:
        """Coordinates [N, r]."""
        return scaled(features_nf, self.mean_f, self.deviation_f, self.scale_f) @ self.axes_fr


def scaled(features_nf: np.ndarray, mean_f: np.ndarray, deviation_f: np.ndarray, scale_f: np.ndarray) -> np.ndarray:
    """Standardised features times their scale, in the dtype of the features."""
    return (features_nf - mean_f) / deviation_f * scale_f.astype(features_nf.dtype)


def principal_axes(features_nf: np.ndarray, scale_f: np.ndarray | None = None) -> tuple[Projection, np.ndarray]:
    """All axes of these clips, and the clips' coordinates, float64 [N, r] with r <= N.

    Args:
        scale_f: None is 1/sqrt(F) for each feature.
    """
    mean_f, deviation_f, scale_f, x_nf = _standardised(features_nf, scale_f)
    vector_nr, size_r = _decompose(x_nf, 1e-9)
    return Projection(mean_f, deviation_f, scale_f, x_nf.T @ (vector_nr / size_r)), vector_nr * size_r


def leading_axes(features_nf: np.ndarray, scale_f: np.ndarray | None = None) -> Projection:
    """The `AXES` largest axes of these clips, in the features' dtype; arguments are those of `principal_axes`."""
    mean_f, deviation_f, scale_f, x_nf = _standardised(features_nf, scale_f)
    vector_nr, size_r = _decompose(x_nf, 1e-6)  # below it is float32's rounding
    turn_nr = (vector_nr / size_r)[:, -AXES:].astype(x_nf.dtype)  # eigh sorts them in ascending order
    return Projection(mean_f, deviation_f, scale_f, x_nf.T @ turn_nr)


def load_parts(
    parts: Sequence[Sequence[str]], blocks: FeatureBlocks, scale_f: np.ndarray | None = None
) -> tuple[list[np.ndarray], Projection | None]:
    """Features [N, F] of the clips of each part; their coordinates [N, r] where there are more than `EXACT` in all.

    Args:
        parts: ids; a sample of the first part gives the axes, the same whatever the order.
        blocks: computes features; those of all clips are never held at once, but for few.
        scale_f: see `principal_axes`.

    Returns:
        an array for each part, and the projection, None for features.
    """
    projection = None
    if sum(map(len, parts)) > EXACT:
        ids = sorted(parts[0])
        sample = [ids[i] for i in np.sort(np.random.default_rng(0).permutation(len(ids))[:EXACT])]
        projection = leading_axes(gather(sample, blocks), scale_f)
    return [gather(ids, blocks, projection) for ids in parts], projection


def gather(
    ids: Sequence[str], blocks: FeatureBlocks, to: Callable[[np.ndarray], np.ndarray] | None = None
) -> np.ndarray:
    """Features of the clips [N, F], or what `to` makes of each block of them [N, ...]."""
    gathered: np.ndarray | None = None
    for position_b, rows_bf in blocks(ids):
        rows = rows_bf if to is None else to(rows_bf)
        if gathered is None:
            gathered = np.full((len(ids), *rows.shape[1:]), np.nan, rows.dtype)
        gathered[position_b] = rows
    if gathered is None:
        raise ValueError("no clips")
    return gathered


def describe(clips: int, projection: Projection | None) -> str:
    """The data of a fit as a sentence."""
    if projection is None:
        return f"fitted to {clips:,} clips"
    axes = projection.axes_fr.shape[1]
    return f"fitted to all {clips:,} clips, in {axes:,} directions: the principal axes of a sample of {EXACT:,} clips"


def _standardised(
    features_nf: np.ndarray, scale_f: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    mean_f, deviation_f = features_nf.mean(axis=0), features_nf.std(axis=0) + 1e-5
    if scale_f is None:
        scale_f = np.full(features_nf.shape[1], features_nf.shape[1] ** -0.5)
    return mean_f, deviation_f, scale_f, scaled(features_nf, mean_f, deviation_f, scale_f)


def _decompose(x_nf: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Left singular vectors [N, r] and singular values [r], ascending: cheap where features are many.

    Values whose square is below `least` of the largest one's are left out.
    """
    square_r, vector_nr = np.linalg.eigh((x_nf @ x_nf.T).astype(np.float64))
    kept_r = square_r > least * square_r.max()
    return vector_nr[:, kept_r], np.sqrt(square_r[kept_r])
