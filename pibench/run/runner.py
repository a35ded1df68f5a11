"""The run: prepare the networks, run the sessions interleaved, check every answer, keep the record after each.

Whatever ends it (Ctrl-C, a full disk, a failed party), the record holds what was finished and says what was not.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pibench.errors import PartyError, PibenchError, UsageError
from pibench.library import resolve
from pibench.links.glooprobe import round_ms
from pibench.links.link import Link as LinkAsked
from pibench.links.link import LinkUp, link_from, measure_well, open_link, probe_problems
from pibench.mpc.protocol import options_on
from pibench.mpc.spec import spec_of
from pibench.records.files import save_record
from pibench.records.record import Case, Declared, Link, Network, Record, Session, Trust
from pibench.records.store import release_scratch, scratch_folder
from pibench.run.advice import advice
from pibench.run.answers import check, score, why_invalid
from pibench.run.assemble import assemble
from pibench.run.declared import declared_cost, held_bytes
from pibench.run.listener import Listener
from pibench.run.memory import refuse_missing_cards, refuse_what_no_card_holds, refuse_what_will_not_fit
from pibench.run.prepare import Prepare, Prepared, write_images
from pibench.run.settings import CasePlan, Needs, OwnModel, RunPlan
from pibench.session.children import Launch
from pibench.session.launch import Nurseries, spawn
from pibench.session.session import SessionPlan, run_session


class OtherSettings(UsageError):
    """The record to go on with holds sessions that this plan would not have made."""


@dataclass
class Run:
    """A run in progress."""

    plan: RunPlan
    path: Path
    record: Record
    prepare: Prepare
    listener: Listener = field(default_factory=Listener)
    opener: Callable[[LinkAsked, bool], LinkUp] = open_link
    dealer_elsewhere: bool = False  # between two hosts: on a third one, instead of beside the client
    nurseries: Callable[[list[str]], AbstractContextManager[Nurseries]] = Nurseries  # what parties are forked from
    _prepared: dict[str, Prepared] = field(default_factory=dict)
    _needs: dict[str, Needs] = field(default_factory=dict)
    _links: dict[tuple[str, bool], tuple[LinkUp, Link]] = field(default_factory=dict)
    _launch: Launch = spawn
    _stopped: set[str] = field(default_factory=set)  # cases that will not run any more

    def execute(self) -> Record:
        """Run everything; returns the finished record. KeyboardInterrupt leaves a valid one behind."""
        refuse_missing_cards(case.device for case in self.plan.cases)
        scratch = scratch_folder()
        try:
            self._save()
            self._prepare_all(scratch)
            self._open_all()
            with self.nurseries(self._modules()) as nurseries:
                self._launch = nurseries.start
                self._run_all(scratch)
            self._advise()
            self._close_cases(finished=True)
        except OtherSettings:
            raise  # the record stays as it was
        except BaseException as error:
            self._close_cases(finished=False, why=_word(error))
            raise
        finally:
            for up, _ in self._links.values():
                up.close()
            release_scratch(scratch)
        return self.record

    def _prepare_all(self, scratch: Path) -> None:
        """Prepare each network once; one that cannot be prepared fails its cases and no others."""
        largest = {name: [c for c in self.plan.cases if c.network == name] for name in self._networks()}
        for number, (name, cases) in enumerate(largest.items()):
            self.listener.preparing(name)
            per_case = self.plan.sessions * (self.plan.warmups + self.plan.inferences)
            images = per_case * max(case.batch for case in cases)
            needs = self._needs[name] = Needs(
                images=images, plain_images=self.plan.accuracy_images, seed=self.plan.seed, merge=self.plan.merge
            )
            try:
                self._prepared[name] = self.prepare(name, scratch / f"network{number}", needs)
            except PibenchError as error:
                self._fail(cases, error)

    def _open_all(self) -> None:
        """Put the cases into the record; OtherSettings where its sessions are of other settings than the plan's."""
        self.plan = replace(self.plan, cases=tuple(map(self._on_its_link, self.plan.cases)))
        ready = [case for case in self.plan.cases if case.network in self._prepared]
        for case in ready:
            self._refuse_other_settings(case)
        self.record = self.record.model_copy(update={"finished": False})
        for case in ready:
            self._open_case(case, self._prepared[case.network])
        self._save()

    def _on_its_link(self, case: CasePlan) -> CasePlan:
        """Return the case with the options that its link decides, which the record then says."""
        if (prepared := self._prepared.get(case.network)) is None:
            return case
        link = link_from(case.link)
        options = options_on(prepared.program, case.protocol, case.batch, case.options, link.rtt_ms, link.mbit_s)
        return replace(case, options=options)

    def _fingerprint(self, case: CasePlan) -> str:
        prepared = self._prepared[case.network]
        return self.plan.fingerprint(case, prepared.program.sha256, prepared.weights_digest)

    def _refuse_other_settings(self, case: CasePlan) -> None:
        """Sessions of other settings do not belong into one case; dropping them would lose what was measured."""
        earlier = next((old for old in self.record.cases if old.id == case.id and old.sessions), None)
        if earlier is not None and earlier.fingerprint != self._fingerprint(case):
            made_by = f" (it was begun with: {shlex.join(self.record.command)})" if self.record.command else ""
            raise OtherSettings(
                f"its {len(earlier.sessions)} sessions of {case.id} are of other settings or weights",
                where=str(self.path), remedy=f"go on with the same options{made_by}, or start a new record",
            )  # fmt: skip

    def _modules(self) -> list[str]:
        """Return what parties are going to import, for the process that they are forked from."""
        made: list[str] = []
        for case in self.plan.cases:
            spec = spec_of(case.protocol)
            if case.id not in self._stopped and spec.engine is None:
                made += spec.module, *spec.preload, *spec.arrangement(case.options).preload
        return list(dict.fromkeys(made))

    def _networks(self) -> list[str]:
        return list(dict.fromkeys(case.network for case in self.plan.cases))

    def _open_case(self, case: CasePlan, prepared: Prepared) -> None:
        """Put the case into the record, with the finished sessions of a run that goes on."""
        kept = next((old.sessions for old in self.record.cases if old.id == case.id), ())
        try:
            declared = declared_cost(case, prepared)
            batches = self.plan.warmups + self.plan.inferences
            chunk = min(self.plan.offline_chunk or batches, batches)
            held, parameters = held_bytes(case, prepared, chunk), prepared.network.parameters
            refuse_what_will_not_fit(held, parameters, chunk)
            refuse_what_no_card_holds(case.device, held, parameters, chunk)
        except PibenchError as error:
            self._fail([case], error)
            return
        trust = self._trust(case)
        fresh = _blank(case).model_copy(
            update={
                "network": prepared.network,
                "fingerprint": self._fingerprint(case),
                "declared": declared,
                "trust": trust,
                "sessions": kept,
            }
        )
        self.record = self.record.with_case(fresh)
        for session in kept:
            self._judge(case, session)

    def _trust(self, case: CasePlan) -> Trust:
        """Return whom a party trusts; a dealer on the client's host knows W together with it."""
        arrangement = spec_of(case.protocol).arrangement(case.options)
        if case.link.get("how") != "network" or not arrangement.dealer or self.dealer_elsewhere:
            return Trust(**asdict(arrangement.trust))
        line = "the client's host runs the dealer, and can compute the server's weights"
        self.listener.told(f"{case.id}: {line}")
        return Trust(short="client's host", line=line)

    def _run_all(self, scratch: Path) -> None:
        todo = [(index, case) for index, case in self.plan.order() if not self._has(case, index)]
        order = 1 + max((s.order for c in self.record.cases for s in c.sessions), default=-1)
        for number, (index, case) in enumerate(todo):
            if case.id in self._stopped:
                continue
            self.listener.started(case, index, number, len(todo))
            start = time.monotonic()
            try:
                self._one(case, index, order + number, scratch)
            except PartyError as error:
                self._fail([case], error)
            self._save()
            self.listener.finished(case, time.monotonic() - start)

    def _has(self, case: CasePlan, index: int) -> bool:
        return any(s.index == index for old in self.record.cases if old.id == case.id for s in old.sessions)

    def _one(self, case: CasePlan, index: int, order: int, scratch: Path) -> None:
        """Run one session and put it into the record."""
        up = self._link(case)
        prepared = self._prepared[case.network]
        count = (self.plan.warmups + self.plan.inferences) * case.batch
        chosen = prepared.turn(index * count, count)
        images = write_images(scratch / "images.safetensors", prepared.images, chosen)
        plan = self._session_plan(case, prepared, images, up)
        result = run_session(plan, lambda phase, batches: self.listener.phase(case, phase, batches), self._launch)
        if result.probe is not None:  # what the parties themselves measured
            old = self.record.case(case.id)
            link = old.link.model_copy(update={"probe": result.probe})
            self.record = self.record.with_case(old.model_copy(update={"link": link}))
        logits = np.asarray(result.logits, dtype=np.float64).reshape(count, -1)
        correctness = check(logits, prepared.reference[chosen], case.tolerance)
        labels = None if prepared.labels is None else prepared.labels[chosen]
        session = assemble(
            result, index=index, order=order, warmups=self.plan.warmups, correctness=correctness,
            accuracy=score(logits, labels), loss_percent=up.link.loss_percent,
        )  # fmt: skip
        self._keep(case, session)

    def _session_plan(self, case: CasePlan, prepared: Prepared, images: Path, up: LinkUp) -> SessionPlan:
        return SessionPlan(
            protocol=case.protocol, program=prepared.ops, options=dict(case.options), batch=case.batch,
            masks=str(prepared.masks_path) if prepared.masks_path else None, weights=str(prepared.weights_path),
            images=str(images), threads=case.threads, pin=self.plan.pin, device=case.device,
            warmups=self.plan.warmups, inferences=self.plan.inferences, offline_chunk=self.plan.offline_chunk,
            timeout_s=self.plan.timeout_s, deadline_s=self.plan.deadline_s, link=up, probe=up.how == "network",
            remote=self._remote(case, prepared) if up.how == "network" else None,
        )  # fmt: skip

    def _remote(self, case: CasePlan, prepared: Prepared) -> dict[str, Any]:
        """Return what the other host is told of the network: a card's text or a module's name, no weights or images."""
        source, needs = self.plan.sources[case.network], self._needs[case.network]
        wanted = {"images": needs.images, "seed": needs.seed, "merge": needs.merge, "program": prepared.program.sha256}
        if isinstance(source, OwnModel):
            return {"model": source.name, **wanted}
        text = resolve(source.card, "networks", "network").read_text(encoding="utf-8")
        return {"card": text, **wanted}

    def _keep(self, case: CasePlan, session: Session) -> None:
        self.record = self.record.with_session(case.id, session)
        self._judge(case, session)

    def _judge(self, case: CasePlan, session: Session) -> None:
        """Make the case invalid for one wrong answer."""
        if (why := why_invalid(session.correctness, case.tolerance)) is not None:
            self._invalid(case, f"session {session.index}: {why}")

    def _invalid(self, case: CasePlan, why: str) -> None:
        old = self.record.case(case.id)
        if old.status != "failed" and not (old.status == "invalid" and why in (old.error or "")):
            error = f"{old.error}; {why}" if old.status == "invalid" and old.error else why
            self.record = self.record.with_case(old.model_copy(update={"status": "invalid", "error": error}))

    def _advise(self) -> None:
        """Say beside every invalid case what may be done about it."""
        for case in self.record.cases:
            if case.status != "invalid" or case.network.card not in self._prepared or not case.sessions:
                continue
            prepared = self._prepared[case.network.card]
            options = spec_of(case.protocol).parse(case.options)
            word = advice(case, self.record.cases, prepared.reach(), options)
            if word and word not in (case.error or ""):
                self.record = self.record.with_case(case.model_copy(update={"error": f"{case.error}; {word}"}))

    def _link(self, case: CasePlan) -> LinkUp:
        """Return the case's link, brought up and measured before its first use."""
        spec, gloo = str(sorted(case.link.items())), spec_of(case.protocol).arrangement(case.options).own_wire
        known = [found for (other, _), found in self._links.items() if other == spec]
        if not (fits := [found for found in known if found[0].any_socket or not gloo]):
            self.listener.told(f"link {case.link['name']}: bringing it up")
            up = self.opener(link_from(case.link), gloo)
            fits = [(up, _link_record(up, any(link_from(c.link).emulated for c in self.plan.cases)))]
            self._links[spec, gloo] = fits[0]
        up, described = fits[0]
        old = self.record.case(case.id)
        if described.probe and gloo:
            described = self._with_gloo(old, up, described)
        self.record = self.record.with_case(old.model_copy(update={"link": described}))
        for problem in probe_problems(asdict(up.link), described.probe or {}) if described.probe else ():
            self._invalid(case, problem)
        return up

    def _with_gloo(self, case: Case, up: LinkUp, described: Link) -> Link:
        """Return the link with what a round of this case takes over gloo, measured once a case."""
        if case.link.probe and "gloo_round_ms" in case.link.probe:
            return case.link
        declared = case.declared or Declared()
        n_bytes = max(declared.server_bytes, declared.client_bytes) // max(1, declared.rounds)
        measured = {"gloo_round_ms": round_ms(up, n_bytes), "gloo_round_bytes": n_bytes}
        return described.model_copy(update={"probe": {**(described.probe or {}), **measured}})

    def _fail(self, cases: list[CasePlan], error: PibenchError) -> None:
        """Write down why cases cannot go on."""
        self.listener.told(f"{', '.join(case.id for case in cases)}: {error}")
        for case in cases:
            self._stopped.add(case.id)
            known = [old for old in self.record.cases if old.id == case.id]
            failed = (known[0] if known else _blank(case)).model_copy(update={"status": "failed", "error": str(error)})
            self.record = self.record.with_case(failed)

    def _close_cases(self, *, finished: bool, why: str = "") -> None:
        """Give every case its last word and save."""
        for case in self.plan.cases:
            old = next((c for c in self.record.cases if c.id == case.id), None) or _blank(case)
            if old.status != "pending":
                continue
            done = len(old.sessions)
            if done >= self.plan.sessions:
                old = old.model_copy(update={"status": "done", "error": None})
            else:
                error = f"{why or 'stopped'} after {done} of {self.plan.sessions} sessions"
                old = old.model_copy(update={"error": error})
            self.record = self.record.with_case(old)
        self.record = self.record.model_copy(update={"finished": finished})
        self._save()

    def _save(self) -> None:
        save_record(self.record, self.path)


def _blank(case: CasePlan) -> Case:
    return Case(
        id=case.id, network=Network(card=case.network), protocol=case.protocol, options=dict(case.options),
        link=Link(name=str(case.link["name"])), device=case.device, batch=case.batch, threads=case.threads,
        tolerance=case.tolerance,
    )  # fmt: skip


def _link_record(up: LinkUp, compared: bool) -> Link:
    """Return what the record says of a link, with what a probe measured on it (`compared`: on loopback, too)."""
    facts: dict[str, Any] = up.to_json()
    facts["rtt_ms"] = facts.get("rtt_ms") or 0.0
    probed = up.how != "network" and (compared or up.link.emulated)
    return Link(**facts, probe=measure_well(up) if probed else None)


def _word(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return f"stopped by {type(error).__name__}"
