"""Claim: sdekit's steps and runs are those of score_sde_pytorch to 1e-9, its conventions put in.

Where that project differs, the difference is built here, explicitly:

1. Its discretisation is a table on the truncated index i = trunc(t (N - 1)) (`Source`): VP has
   the scale sqrt(1 - beta_i), VE the variance sigma_i^2 - sigma_{i-1}^2 with sigma_{-1} = 0,
   while the score is that of the continuous SDE at t. On sdekit's own chain,
   `VPSDE.discretize(N)`, and on `VESDE` at the nodes i/(N - 1) the same tables come out, and only
   the time that the *model* sees differs (`shifted`).
2. Euler-Maruyama steps by 1/N whatever the spacing of the grid (1 - eps)/(N - 1), so a run is
   done row by row (`euler_row`); its last step would end at eps - 1/N < 0, where sdekit has no
   time: there the same formula is made from `sde.reverse`.
3. Sub-VP "reverse diffusion" is that Euler-Maruyama step; its correctors use VP's alphas.
4. The Langevin corrector uses batch means: `rule="batch_norm"`.
5. "Probability flow" with reverse diffusion is half the score and no noise.
6. A run returns `x_mean`, the state before the last noise: on a chain that is how sdekit ends (no
   noise where var = 0); on VE it is `denoise=True`, because sigma_{-1} = 0; else the last draw is
   0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from sampling_support import EXACT, Given, reference_target
from strategies import f64
from support import assert_close, reference_cases

from sdekit.model import ExactScore
from sdekit.sampling import (
    Ancestral,
    AnnealedLangevin,
    EulerMaruyama,
    Langevin,
    PredictorCorrector,
    ProbabilityFlow,
    ReverseDiffusion,
    Sampler,
    sample,
)  # fmt: skip
from sdekit.sampling.noise import Replay, Zero
from sdekit.sde import VESDE, VPSDE, LinearSDE, SubVPSDE

FILE = "score_sde_samplers"


def _index(n: int, t: torch.Tensor) -> torch.Tensor:
    return (t * (n - 1)).to(torch.int64).clamp(0, n - 1)  # the source truncates


@dataclass(frozen=True, kw_only=True)
class SourceVP(VPSDE):
    """VP with the source's discretisation as its transition (convention 1)."""

    n: int = 25

    def transition(self, s, t):
        ends = self.beta_min / self.n, self.beta_max / self.n
        beta = torch.linspace(*ends, self.n, dtype=torch.float64)[_index(self.n, t)]
        return (1 - beta).sqrt(), beta.sqrt()


@dataclass(frozen=True, kw_only=True)
class SourceSubVP(SubVPSDE):
    """Sub-VP with the alphas that the reference run was patched with (convention 3)."""

    n: int = 25

    def transition(self, s, t):
        return SourceVP(beta_min=self.beta_min, beta_max=self.beta_max, n=self.n).transition(s, t)


@dataclass(frozen=True, kw_only=True)
class SourceVE(VESDE):
    """VE with the source's discretisation as its transition (convention 1)."""

    n: int = 20

    def transition(self, s, t):
        i = _index(self.n, t)
        level = i.to(torch.float64) / (self.n - 1)  # sigma_i is geometric, like sigma(t)
        before = torch.where(i > 0, super().var((level - 1 / (self.n - 1)).clamp_min(0)), 0.0)
        return torch.ones_like(t), (super().var(level) - before).sqrt()


@dataclass(frozen=True, kw_only=True)
class HalfScore(Sampler):
    """Convention 5: reverse diffusion with half the score and no noise."""

    def coefficients(self, sde, grid):
        mean = ReverseDiffusion().coefficients(sde, grid)["mean"]
        return {"mean": replace(mean, score=0.5 * mean.score)}

    def step(self, x, c, model, state, noise):
        return model(x, c.t).mix(c.mean), state


class Case:
    """One case: the source's SDE, the law, the noise, and the times that its runs visit."""

    def __init__(self, about: dict, reference) -> None:
        self.about = about
        self.data = reference.load(FILE)
        self.n = about["N"]
        self.target = reference_target(reference, about["target"])
        self.ve = about["sde"] == "VE"

    def flat(self, key: str) -> torch.Tensor:
        """An array with (1, 2, 2) flattened."""
        return self.data.array(self.about, key).flatten(-3)

    def bank(self) -> list[torch.Tensor]:
        bank = self.data.array(f"noise_bank/{self.about['target']}", "noise").flatten(-3)
        return list(bank[: self.about["noise_rows"]])

    def sde(self, source: bool = True, **fields) -> LinearSDE:
        """The source's SDE, or sdekit's own with the same parameters."""
        names = ("sigma_min", "sigma_max") if self.ve else ("beta_min", "beta_max")
        values = {name: self.about[name] for name in names}
        mine = {"VP": VPSDE, "sub-VP": SubVPSDE, "VE": VESDE}[self.about["sde"]]
        theirs = {"VP": SourceVP, "sub-VP": SourceSubVP, "VE": SourceVE}[self.about["sde"]]
        return theirs(n=self.n, **values, **fields) if source else mine(**values, **fields)

    def model(self, **fields) -> ExactScore:
        return ExactScore(self.target, self.sde(**{"t_min": 1e-7, **fields}))

    def times(self) -> list[float]:
        return torch.linspace(1, self.about["eps"], self.n, dtype=torch.float64).tolist()

    def shifted(self, times: dict[int, float]) -> Given:
        """Sdekit's own discrete process, with the continuous SDE's score at times[i] on node i."""
        sde = self.sde(source=False)
        exact = ExactScore(self.target, self.sde(source=False, t_min=1e-7))
        at = {self.node(i): t for i, t in times.items()}
        return Given(
            lambda x, t: exact(x, at[min(at, key=lambda u: abs(u - t))]).score,
            sde if self.ve else sde.discretize(self.n),
        )

    def node(self, i: int) -> float:
        """The time of the source's index i on that process."""
        return i / (self.n - 1) if self.ve else (i + 1) / self.n

    def ancestral(self) -> Ancestral:
        return Ancestral(variance="posterior" if self.ve else "beta")

    def corrector(self, name: str, repeats: int = 1):
        if name == "langevin":  # convention 4
            return Langevin(snr=self.about["snr"], rule="batch_norm", repeats=repeats)
        return AnnealedLangevin(snr=self.about["snr"], repeats=repeats)


def euler_row(case: Case, x, t: float, z, eta: float = 1.0):
    """(x_out, x_mean) of convention 2, by the sampler where its step stays inside, and by hand."""
    h = 1 / case.n
    model = case.model()
    reverse = model.sde.reverse(lambda y, u: model(y, u).score, eta=eta)
    mean = x - h * reverse.drift(x, t)
    out = mean + float(reverse.diffusion(t)) * h**0.5 * z
    if t - h > model.sde.t_min:
        how = dict(sampler=EulerMaruyama(eta=eta), grid=f64([t, t - h]), x_init=x)
        assert_close(sample(model, tuple(x.shape), noise=Zero(), **how).x, mean, tol=1e-13)
        assert_close(sample(model, tuple(x.shape), noise=lambda y: z, **how).x, out, tol=1e-13)
    return out, mean


def corrected(case: Case, name: str, x, t: float, noise, repeats: int = 1):
    """Steps of a corrector at the level t alone: from a level above, which is not visited."""
    model = case.model(t_max=1.1)
    grid = f64([1.1, t])
    how = dict(sampler=case.corrector(name, repeats), grid=grid, x_init=x)
    return sample(model, tuple(x.shape), noise=Replay(noise), **how).x


def row(model, sampler, grid, x, noise):
    return sample(model, tuple(x.shape), sampler=sampler, grid=f64(grid), x_init=x, noise=noise).x


# one step ---------------------------------------------------------------------------------------


def step_predictor(case: Case, k: int, t: float, x, z):
    """(x_out, x_mean) of the case's predictor at t."""
    name, flow = case.about["predictor"], case.about["probability_flow"]
    if name == "euler_maruyama" or case.about["sde"] == "sub-VP":  # convention 3
        return euler_row(case, x, t, torch.zeros_like(z) if flow else z, 0.0 if flow else 1.0)
    if name == "reverse_diffusion":
        sampler = HalfScore() if flow else ReverseDiffusion()
        both = [
            row(case.model(), sampler, [t, t / 2], x, noise) for noise in (Replay([z]), Zero())
        ]
        if not flow:
            compare_on_nodes(case, ReverseDiffusion(), t, x, z, both)
        return both
    i = int(_index(case.n, f64(t)))
    model = case.shifted({i: t})
    if i > 0:
        grid = [case.node(i), case.node(i - 1)]
        return [row(model, case.ancestral(), grid, x, noise) for noise in (Replay([z]), Zero())]
    if case.ve:  # sigma_{-1} = 0: the mean is Tweedie's, and there is no noise
        mean = model(x, 0.0).x0
        return mean, mean
    mean = row(model, case.ancestral(), [case.node(0), 0.0], x, Zero())
    return mean + float(
        model.sde.betas[0].sqrt()
    ) * z, mean  # ours adds none where it lands on data


def compare_on_nodes(case: Case, sampler, t: float, x, z, both) -> None:
    """The same step on sdekit's own discretisation."""
    i = int(_index(case.n, f64(t)))
    if i > 0:
        model, grid = case.shifted({i: t}), [case.node(i), case.node(i - 1)]
        assert_close(row(model, sampler, grid, x, Replay([z])), both[0], tol=1e-12)
        assert_close(row(model, sampler, grid, x, Zero()), both[1], tol=1e-12)


def one_step(case: Case) -> None:
    for k, t in enumerate(case.data.array(case.about, "t").tolist()):
        x, z = case.flat("x_in")[k], case.flat("noise")[k]
        if "predictor" in case.about:
            out, mean = step_predictor(case, k, t, x, z)
        else:
            name, n = case.about["corrector"], case.about["n_steps"]
            out = corrected(case, name, x, t, z, n)
            before = corrected(
                case, name, x, t, z[:-1], n - 1
            )  # x_mean: one more, without its noise
            mean = without_noise(case, name, before, out, t, z[-1])
        assert_close(out, case.flat("x_out")[k], tol=EXACT)
        assert_close(mean, case.flat("x_mean")[k], tol=EXACT)


def without_noise(case: Case, name: str, before, out, t: float, z):
    """The last state of a corrector before its noise: the step is read from the move."""
    score = case.model(t_max=1.1)(before, t).score
    if name == "ald":
        return corrected(case, name, before, t, [torch.zeros_like(z)])
    # out = before + step score + sqrt(2 step) z with one step for the batch: root of a quadratic
    a, b, c = score[0, 0], 2**0.5 * z[0, 0], before[0, 0] - out[0, 0]
    roots = [(-b + s * (b * b - 4 * a * c).sqrt()) / (2 * a) for s in (1, -1)]
    root = min(
        roots, key=lambda r: float((before + r**2 * score + 2**0.5 * r * z - out).abs().max())
    )
    return before + root**2 * score


# whole runs -------------------------------------------------------------------------------------


def pc_run(case: Case) -> None:
    predictor, corrector = case.about["case"].split("/")[-1].split("+")
    runs = {
        "none": corrector_run,
        "euler_maruyama": euler_run,
        "ancestral_sampling": node_run,
        "reverse_diffusion": euler_run if case.about["sde"] == "sub-VP" else source_run,
    }
    states, final = runs[predictor](case, corrector)
    # all states but the last, which the source reports with noise and we without
    assert_close(torch.stack(states[: case.n - 1]), case.flat("x_steps")[:-1], tol=EXACT)
    assert_close(final, case.flat("x_final_denoised"), tol=EXACT)


def corrector_run(case: Case, corrector: str):
    """No predictor: the corrector at every time of the grid; nothing is denoised."""
    model, x = case.model(t_max=1.1), case.flat("x_T")
    how = dict(sampler=case.corrector(corrector), grid=f64([1.1, *case.times()]), keep="all")
    run = sample(model, tuple(x.shape), x_init=x, noise=Replay(case.bank()), **how)
    return list(run.trajectory[1:]), run.x


def euler_run(case: Case, corrector: str):
    """Row by row, because the step 1/N is not the spacing of the grid (convention 2)."""
    x, noise, states = case.flat("x_T"), case.bank(), []
    for t in case.times():
        if corrector != "none":
            x = corrected(case, corrector, x, t, [noise.pop(0)])
        x, mean = euler_row(case, x, t, noise.pop(0))
        states.append(x)
    return states, mean


def source_run(case: Case, corrector: str):
    """One run on the source's discretisation; the last draw is 0, which leaves x_mean."""
    x, noise = case.flat("x_T"), case.bank()
    sampler = ReverseDiffusion()
    if corrector != "none":
        sampler = PredictorCorrector(predictor=sampler, corrector=case.corrector(corrector))
    grid = f64([*case.times(), case.about["eps"] / 2])
    noise[-1] = torch.zeros_like(noise[-1])
    how = dict(sampler=sampler, grid=grid, x_init=x, keep="all")
    run = sample(case.model(), tuple(x.shape), noise=Replay(noise), **how)
    return list(run.trajectory[1:]), run.x


def node_run(case: Case, corrector: str):
    """One run on sdekit's own discretisation, the model at the source's times (convention 1)."""
    x, noise, sampler = case.flat("x_T"), case.bank(), case.ancestral()
    if corrector != "none":
        sampler = PredictorCorrector(predictor=sampler, corrector=case.corrector(corrector))
    nodes = [case.node(i) for i in reversed(range(case.n))]
    model = case.shifted(dict(enumerate(reversed(case.times()))))
    grid = f64(nodes if case.ve else [*nodes, 0.0])
    how = dict(grid=grid, x_init=x, keep="all")
    done = sample(model, tuple(x.shape), sampler=sampler, noise=Replay(noise), **how)
    x, states = done.x, list(done.trajectory[1:])
    if case.ve:  # the last row: the corrector at sigma_min, then to sigma = 0 (convention 6)
        if corrector != "none":
            x = corrected(case, corrector, x, case.about["eps"], [noise[-2]])
        x = model(x, 0.0).x0
    return states, x


def ode_run(case: Case) -> None:
    """The probability flow at the source's tolerance; torchdiffeq's solver once."""
    eps, x = case.about["eps"], case.flat("x_T")
    model = ExactScore(case.target, case.sde(source=False, t_min=eps))
    for solver in ("scipy:DOP853", "dopri8")[: 2 if case.about["case"] == "ode/vp/gauss" else 1]:
        flow = ProbabilityFlow(solver=solver, rtol=1e-11, atol=1e-11)
        run = sample(model, tuple(x.shape), sampler=flow, x_init=x)
        assert_close(run.x, case.flat("x_eps"), tol=EXACT)


KINDS = {"step": one_step, "pc": pc_run, "ode": ode_run}


@pytest.mark.parametrize(
    "about", reference_cases(FILE, lambda c: not c["case"].startswith("noise_bank"))
)
def test_case(about, reference):
    case = Case(about, reference)
    KINDS[about["case"].split("/")[0]](case)


def test_no_case_is_left_out(reference):
    data = reference.load(FILE)
    names = [c["case"] for c in data.cases if not c["case"].startswith("noise_bank")]
    assert len(names) == 84
    assert len(data.cases) == 86
    assert {name.split("/")[0] for name in names} == set(KINDS)


def test_the_step_of_the_source_is_not_the_spacing_of_its_grid(reference):
    """Bug 5 of PEER_BUGS: with the grid's own steps the run comes out elsewhere."""
    about = reference.load(FILE).case("pc/vp/gauss/euler_maruyama+none")
    case = Case(about, reference)
    how = dict(sampler=EulerMaruyama(), grid=f64(case.times()), x_init=case.flat("x_T"))
    run = sample(case.model(), (3, 4), noise=Replay(case.bank()), keep="all", **how)
    gap = (run.trajectory[1:] - case.flat("x_steps")[:-1]).abs().amax((1, 2))
    assert gap.min() > 1e-4
