"""What is refused when a distillation is built, of terms and of what the student tells them."""

from collections.abc import Mapping, Sequence

from ..networks import Network, Tap
from ..teachers import Own, Source
from .term import Term


def check_term(term: Term, student: Network, sources: Mapping[str, Source]) -> None:
    """See that a term gets the labels that it needs, and compares two things.

    Raises:
        ValueError: If labels are soft, or it compares a place with itself.
    """
    readers = [term.who] if 'labels' in term.needs else []
    readers += [f"'{name}' of {term.who}" for name in term.sources if 'labels' in sources[name].needs]
    if readers and student.softens_labels:
        raise ValueError(
            f"{readers[0]} needs one class per image, and the student's data preprocessor makes soft labels "
            '(mixup, cutmix or to_onehot): remove train_cfg.augments / batch_augments / to_onehot, or use '
            'KDLoss with a trained teacher'
        )
    for name in term.sources:
        sources[name].read_by(term.who, term.taps(name), term[0])
    same = [name for name in term.sources if isinstance(sources[name], Own) and name != 'student']
    if any(term.learner == 'student' and term.taps(name) == term.taps('student') for name in same):
        raise ValueError(
            f"{term.who} compares '{term.taps('student')[0]}' of the student with itself, and teaches nothing: "
            f"name two places, as in on=dict(student='backbone.layer3', {same[0]}='backbone.layer4')"
        )


def assigned_taps(terms: Sequence[Term], student: Network) -> dict[str, Tap]:
    """By dense head, where the student's own loss is told which class each position is of; empty if nobody asks.

    Raises:
        ValueError: If a term asks that reads no such head, or terms ask for those of several.
    """
    assigned: dict[str, Tap] = {}
    for term in terms:
        if 'assignments' in term.needs:
            told = student.assigned_at(term.taps('student'))
            if not told:
                raise ValueError(
                    f'{term.who} needs the assignments of a dense head, and reads none that is told them: tap '
                    "one, as in on='bbox_head[0][0]'"
                )
            assigned |= told
    if len(assigned) > 1:
        raise ValueError(
            f'losses need the assignments of {" and ".join(assigned)}, expected those of one dense head: '
            'they are told which class a position is of, and not by whom'
        )
    return assigned
