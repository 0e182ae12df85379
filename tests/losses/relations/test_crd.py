import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from mmkd_plugin import losses
from mmkd_plugin.losses import CRDLoss, contrast, memory
from mmkd_plugin.losses.memory import Classes, take_in, update_rows
from tests.losses.relations import naive_crd

# called with stars, which mypy cannot count
crd_loss: Any = losses.crd_loss
crd_queue_loss: Any = losses.crd_queue_loss
draw_others: Any = memory.draw_others
draw_same: Any = memory.draw_same

N, D, SAMPLES, K = 5, 4, 30, 12
LABELS = torch.arange(SAMPLES) % 3 + 7


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64))


def given(seed: int = 0) -> Any:
    """Embeddings, banks, and indices of which some are drawn twice."""
    generator = torch.Generator().manual_seed(seed)
    indices = torch.randint(SAMPLES, (N, 1 + K), generator=generator)
    embeddings = [unit(N, D, seed=seed + i).requires_grad_() for i in (1, 2)]
    return (*embeddings, unit(SAMPLES, D, seed=seed + 3), unit(SAMPLES, D, seed=seed + 4), indices)


def facts(labels=LABELS):
    class Data:
        def __len__(self):
            return len(labels)

        def labels(self):
            return labels

    return SimpleNamespace(data=Data())


def prepared(labels=LABELS, seed=0, **arguments):
    torch.manual_seed(seed)
    loss = CRDLoss(**{'num_negatives': K, 'embedding_dim': D, **arguments})
    loss.build_connectors((2, 6), (2, 8, 3, 3))
    loss.double()
    loss.prepare(facts(labels))
    return loss


def taps(n=N, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = (n, 6), (n, 8, 3, 3)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]


@pytest.fixture(params=['product', 'fetched', 'fetched one by one'])
def path(request, monkeypatch):
    """Both ways to the scores, and the samples one at a time."""
    monkeypatch.setattr(contrast, 'DENSE', 32 if request.param == 'product' else 0)
    monkeypatch.setattr(contrast, 'CHUNK', 2**24 if request.param != 'fetched one by one' else 1)


class TestValue:
    def test_equal_scores(self):
        """ln(1 + K) + K ln(1 + 1/K) a side; the code's 1e-7 adds n * 1e-7, about."""
        n, k = 50_000, 16_384
        g, bank = unit(1, 2), torch.zeros(n, 2, dtype=torch.float64)
        value = crd_loss(g, g, bank, bank, torch.arange(k + 1)[None], eps=0)
        assert value.item() == pytest.approx(21.40818, abs=1e-5)
        assert value.item() == pytest.approx(2 * (math.log(1 + k) + k * math.log(1 + 1 / k)), abs=1e-9)
        more = crd_loss(g, g, bank, bank, torch.arange(k + 1)[None]) - value
        assert more.item() == pytest.approx(2 * n * 1e-7, rel=1e-3)

    @pytest.mark.parametrize('eps', [1e-7, 0.01])
    def test_naive(self, path, eps):
        student, teacher, student_bank, teacher_bank, indices = given()
        z = 3.0, 50.0
        value = crd_loss(
            student, teacher, student_bank, teacher_bank, indices, torch.tensor(z).double().log(), 0.2, eps
        )
        found = torch.autograd.grad(value, (student, teacher))
        expected = naive_crd.side(student, teacher_bank, indices, z[0], 0.2, eps) + naive_crd.side(
            teacher, student_bank, indices, z[1], 0.2, eps
        )
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(found, torch.autograd.grad(expected, (student, teacher)))

    def test_normalizers_of_the_batch_itself(self, path):
        student, teacher, student_bank, teacher_bank, indices = given()
        z = [naive_crd.normalizer(*pair, indices, 0.1) for pair in ((student, teacher_bank), (teacher, student_bank))]
        expected = crd_loss(student, teacher, student_bank, teacher_bank, indices, torch.tensor(z).double().log(), 0.1)
        found = crd_loss(student, teacher, student_bank, teacher_bank, indices, temperature=0.1)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(torch.autograd.grad(found, teacher), torch.autograd.grad(expected, teacher))

    def test_no_gradient_to_the_banks(self, path):
        student, teacher, *banks, indices = given()
        value = crd_loss(student, teacher, *(bank.requires_grad_() for bank in banks), indices)
        value.backward()
        assert [bank.grad for bank in banks] == [None, None]

    def test_banks_may_change_before_the_backward_pass(self, path):
        student, teacher, *banks, indices = given()
        expected = torch.autograd.grad(crd_loss(student, teacher, *banks, indices), student)
        value = crd_loss(student, teacher, *banks, indices)
        for bank in banks:
            bank.zero_()
        torch.testing.assert_close(torch.autograd.grad(value, student), expected, rtol=0, atol=0)

    @pytest.mark.parametrize('temperature', [0.07, 1e-3])
    def test_a_small_temperature_does_not_overflow(self, temperature):
        student, teacher, *banks, indices = (x.float() if x.is_floating_point() else x for x in given())
        value = crd_loss(student, teacher, *banks, indices, temperature=temperature)
        assert all(x.isfinite().all() for x in (value, *torch.autograd.grad(value, (student, teacher))))

    def test_symmetric_in_the_networks(self):
        student, teacher, student_bank, teacher_bank, indices = given()
        torch.testing.assert_close(
            crd_loss(teacher, student, teacher_bank, student_bank, indices),
            crd_loss(student, teacher, student_bank, teacher_bank, indices),
        )

    def test_shapes_that_do_not_fit(self):
        student, teacher, *banks, indices = given()
        for wrong in (
            (student, teacher[:2], *banks, indices), (student, teacher, banks[0], banks[1][:, :3], indices),
            (student, teacher, *banks, indices[:, :1]), (student, teacher, *banks, indices[:2]),
            (student, teacher, *banks, indices[:, 0]), (student[:, :3], teacher[:, :3], *banks, indices),
        ):  # fmt: skip
            with pytest.raises(ValueError, match='given, expected'):
                crd_loss(*wrong)


class TestQueueValue:
    def test_naive(self):
        student, teacher, *queues, _ = given()
        others = LABELS[:N, None] != LABELS
        others[0] = False  # nothing to compare the first one with
        others[0, 3] = True
        z = 3.0, 50.0
        found = crd_queue_loss(student, teacher, *queues, others, torch.tensor(z).double().log(), 100, 0.2)
        sides = (student, teacher, queues[1], z[0]), (teacher, student, queues[0], z[1])
        values = [naive_crd.queue_side(a, b, queue, others, 100, own, 0.2, 1e-7) for a, b, queue, own in sides]
        expected = values[0] + values[1]
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(
            torch.autograd.grad(found, (student, teacher)), torch.autograd.grad(expected, (student, teacher))
        )

    def test_is_what_drawing_gives_on_average(self):
        """Of banks whose positives are the embeddings themselves, K negatives drawn with replacement."""
        student, teacher, *queues, _ = given()
        others = LABELS[:N, None] != LABELS
        z = torch.tensor([3.0, 50.0]).double().log()
        expected = crd_queue_loss(student, teacher, *queues, others, z, K, 0.5)
        banks = [torch.cat([queue, own.detach()]) for queue, own in zip(queues, (student, teacher), strict=True)]
        n = math.log(len(banks[0]) / SAMPLES)  # log Z grows with n
        values = []
        for seed in range(300):
            generator = torch.Generator().manual_seed(seed)
            drawn = others.double().multinomial(K, replacement=True, generator=generator)
            indices = torch.cat([SAMPLES + torch.arange(N)[:, None], drawn], 1)
            values.append(crd_loss(student, teacher, *banks, indices, z + n, 0.5, eps=0))
        spread = torch.stack(values).std() / 300**0.5
        assert abs(torch.stack(values).mean() - expected) < 4 * spread

    def test_no_sample_of_another_class(self):
        student, teacher, *queues, _ = given()
        value = crd_queue_loss(student, teacher, *queues, torch.zeros(N, SAMPLES, dtype=torch.bool))
        assert value.isfinite()
        assert all(x.isfinite().all() for x in torch.autograd.grad(value, (student, teacher)))


def drawing(labels, seed=0):
    known = Classes(labels)
    return (known.of, known.order, known.starts, known.sizes), known.largest, torch.Generator().manual_seed(seed)


class TestDrawing:
    @pytest.mark.parametrize('labels', [LABELS, torch.tensor([3] * 9 + [1] * 2 + [8] * 6 + [0])])
    def test_other_classes_without_replacement(self, labels):
        known, largest, generator = drawing(labels)
        index = torch.arange(len(labels)).flip(0)
        for count in (1, len(labels) - largest):
            for _ in range(20):
                drawn = draw_others(index, *known, largest, count, generator)
                assert drawn.shape == (len(labels), count)
                assert (labels[drawn] != labels[index][:, None]).all()
                assert all(len(set(row)) == count for row in drawn.tolist())
        same = draw_same(index, *known, generator)
        assert (labels[same] == labels[index]).all()

    def test_all_sets_are_equally_likely(self):
        """Of 4 others 2, in this order: 12 outcomes for each sample."""
        labels = torch.tensor([0, 1, 0, 1, 2, 0, 2])
        known, largest, generator = drawing(labels)
        counts = torch.zeros(len(labels), 7, 7)
        rounds = 6000
        for _ in range(rounds):
            drawn = draw_others(torch.arange(len(labels)), *known, largest, 2, generator)
            counts[torch.arange(len(labels)), drawn[:, 0], drawn[:, 1]] += 1
        for sample, found in enumerate(counts):
            others = [i for i in range(7) if labels[i] != labels[sample]]
            pairs = torch.stack([found[a, b] for a in others for b in others if a != b])
            assert pairs.sum() == rounds
            expected = rounds / len(pairs)
            chi = ((pairs - expected) ** 2 / expected).sum().item()
            assert chi < len(pairs) - 1 + 5 * (2 * (len(pairs) - 1)) ** 0.5

    def test_relaxed_positives_are_equally_likely(self):
        labels = torch.tensor([0, 1, 0, 1, 2, 0, 1, 1])
        known, _, generator = drawing(labels)
        index = torch.arange(8)
        counts = torch.zeros(8, 8)
        for _ in range(4000):
            counts[index, draw_same(index, *known, generator)] += 1
        same = labels == labels[:, None]
        assert (counts[~same] == 0).all()
        torch.testing.assert_close(counts / 4000, same / same.sum(1, keepdim=True), atol=0.04, rtol=0)

    def test_of_a_batch_each_sample_draws_for_itself(self):
        known, largest, _ = drawing(LABELS)
        index = torch.tensor([4, 17, 4, 29])
        whole = draw_others(index, *known, largest, K, torch.Generator().manual_seed(3))
        alone = draw_others(index[1:2], *known, largest, K, torch.Generator().manual_seed(3))
        assert torch.equal(whole[1:2], alone)
        assert torch.equal(whole[0], whole[2])


class TestKeepingUp:
    def test_rows_move(self):
        bank, index, embedding = 2 * unit(SAMPLES, D), torch.tensor([4, 9, 4, 0, 4]), unit(N, D, seed=5)
        expected = naive_crd.moved(bank, index.tolist(), embedding, 0.3)
        before = bank.clone()
        update_rows(bank, index, embedding, 0.3)
        torch.testing.assert_close(bank, expected)
        touched = torch.zeros(SAMPLES, dtype=torch.bool).index_fill(0, index, True)
        torch.testing.assert_close(bank[touched].norm(dim=1), torch.ones(3, dtype=torch.float64))
        assert torch.equal(bank[~touched], before[~touched])

    @pytest.mark.parametrize('slots', [4, 7, 20])
    def test_first_in_first_out(self, slots):
        queue, seen, kept = torch.full((slots,), -1), torch.tensor(0), list[int]()
        for batch in torch.arange(60).split(6):
            take_in(queue, seen, batch)
            seen += len(batch)
            kept = (kept + batch.tolist())[-slots:]
            assert sorted(i for i in queue.tolist() if i >= 0) == kept
        assert queue.dtype == torch.int64


class TestLoss:
    def test_a_step(self):
        """The value by the banks of before, then the update."""
        loss = prepared(loss_weight=0.3)
        index = torch.tensor([3, 8, 20, 3, 11])
        banks = [bank.clone() for bank in (loss.student_bank, loss.teacher_bank)]
        torch.manual_seed(5)
        indices = loss.draw(index)
        torch.manual_seed(5)
        value = loss(*taps(), index)
        student, teacher = taps()
        ours = F.normalize(loss.embed_student(student))
        theirs = F.normalize(loss.embed_teacher(teacher.mean((2, 3))))
        torch.testing.assert_close(value, 0.3 * crd_loss(ours, theirs, *banks, indices))
        assert torch.equal(indices[:, 0], index)
        for bank, before, own in zip((loss.student_bank, loss.teacher_bank), banks, (ours, theirs), strict=True):
            torch.testing.assert_close(bank, naive_crd.moved(before, index.tolist(), own.detach(), 0.5))
        assert loss.seen == 5

    def test_normalizers_are_of_the_first_batch(self):
        loss = prepared()
        loss.eval()
        loss(*taps(), torch.arange(N))
        assert (loss.normalizers == 0).all()
        loss.train()
        banks = [bank.clone() for bank in (loss.student_bank, loss.teacher_bank)]
        torch.manual_seed(5)
        loss(*taps(), torch.arange(N))
        set_once = loss.normalizers.clone()
        torch.manual_seed(5)
        indices, (student, _) = loss.draw(torch.arange(N)), taps()
        z = naive_crd.normalizer(F.normalize(loss.embed_student(student)).detach(), banks[1], indices, 0.07)
        assert set_once[0].item() == pytest.approx(math.log(z))
        loss(*taps(seed=1), torch.arange(N))
        assert torch.equal(loss.normalizers, set_once)

    def test_the_step_waits_for_nothing_once_it_has_begun(self, monkeypatch):
        loss = prepared()
        loss(*taps(), torch.arange(N))
        loss(*taps(), torch.arange(N))
        monkeypatch.setattr(torch.Tensor, '__bool__', lambda self: pytest.fail('looked at a tensor'))
        monkeypatch.setattr(CRDLoss, '_check_index', lambda *_: None)  # which looks on a CPU only
        loss(*taps(), torch.arange(N))

    def test_an_empty_batch_sets_nothing(self):
        loss = prepared()
        assert loss(*taps(0), torch.arange(0)) == 0
        assert (loss.normalizers == 0).all()
        assert loss.seen == 0
        assert loss(*taps(), torch.arange(N)).isfinite()
        assert (loss.normalizers != 0).all()

    def test_banks_begin_at_random_by_the_seed(self):
        bank = prepared(seed=1, embedding_dim=48).student_bank
        bound = (3 / 48) ** 0.5
        assert bank.shape == (SAMPLES, 48)
        assert 0.95 * bound < bank.abs().max() <= bound
        assert bank.norm(dim=1).mean().item() == pytest.approx(1, abs=0.05)
        assert torch.equal(prepared(seed=1, embedding_dim=48).student_bank, bank)
        assert not torch.equal(prepared(seed=2, embedding_dim=48).student_bank, bank)

    def test_queue(self):
        loss = prepared(queue=8, num_negatives=100)
        assert loss.student_bank.shape == (8, D)
        assert loss.queue_classes.tolist() == [-1] * 8
        queues = [queue.clone() for queue in (loss.student_bank, loss.teacher_bank)]
        student, teacher = taps()
        ours = F.normalize(loss.embed_student(student))
        theirs = F.normalize(loss.embed_teacher(teacher.mean((2, 3))))
        expected = crd_queue_loss(ours, theirs, *queues, torch.ones(N, 8, dtype=torch.bool), num_negatives=100)
        torch.testing.assert_close(loss(student, teacher, torch.tensor([4, 5, 6, 8, 9])), 0.8 * expected)
        torch.testing.assert_close(loss.student_bank, torch.cat([ours, queues[0][N:]]).detach())
        assert loss.queue_classes.tolist() == [1, 2, 0, 2, 0, -1, -1, -1]
        assert loss._others(torch.tensor([4])).tolist() == [[False] + [True] * 7]


class TestMistakes:
    @pytest.mark.parametrize('index', [[-1, 0, 1, 2, 3], [0, 1, 2, 3, SAMPLES]])
    def test_unknown_samples(self, index):
        with pytest.raises(ValueError, match='expected indices of the 30 training samples'):
            prepared()(*taps(), torch.tensor(index))

    def test_another_number_of_samples(self):
        with pytest.raises(ValueError, match=r'sample_idx \(4,\) given, expected an index for each of 5 rows'):
            prepared()(*taps(), torch.arange(4))

    def test_more_negatives_than_there_are(self):
        prepared(num_negatives=20)
        with pytest.raises(ValueError, match='give num_negatives=20 or less'):
            prepared(num_negatives=21)
        with pytest.raises(ValueError, match='two classes'):
            prepared(labels=torch.zeros(9, dtype=torch.int64))
        prepared(num_negatives=21, queue=5)

    def test_no_data_were_told(self):
        loss = CRDLoss()
        loss.build_connectors((2, 6), (2, 8))
        with pytest.raises(RuntimeError, match='told of no training data'):
            loss(torch.randn(2, 6), torch.randn(2, 8), torch.arange(2))

    def test_relaxed_positives_of_a_queue(self):
        with pytest.raises(ValueError, match='with a queue the positive is the sample itself'):
            CRDLoss(positive='relax', queue=5)

    def test_too_little_memory(self, monkeypatch):
        row = 2 * D * 8
        monkeypatch.setattr(memory, 'free_memory', lambda device: 20 * row)
        with pytest.raises(ValueError, match=r'of each of 30 samples.*queue=8 would fit'):
            prepared()
        assert len(prepared(queue=8).student_bank) == 8
        monkeypatch.setattr(memory, 'free_memory', lambda device: None)
        prepared()

    def test_free_memory_is_known_here(self):
        free = memory.free_memory(torch.device('cpu'))
        assert free is None or free > 2**20
        assert memory.free_memory(torch.device('meta')) is None

    def test_memory_is_told(self):
        loss = CRDLoss(num_negatives=20)
        loss.build_connectors((2, 6), (2, 8))
        assert '30 embeddings of each network are kept, 0.0 MiB here' in loss.prepare(facts())
        wide = CRDLoss(num_negatives=60, embedding_dim=512)
        wide.build_connectors((2, 6), (2, 8))
        told = wide.prepare(facts(torch.arange(2048)))
        assert '2048 embeddings of each network are kept, 8.0 MiB here' in told  # 2 * 2048 * 512 * 4 bytes
        assert 'a step takes 0.12 MiB or less' in told  # 24 * 61 + 4 * (60 * 512 + 4 * 60) bytes


class TestCheckpoint:
    def test_a_fresh_loss_takes_banks_of_any_size(self):
        trained, fresh = prepared(), CRDLoss(num_negatives=K, embedding_dim=D)
        trained(*taps(), torch.arange(N))
        fresh.build_connectors((2, 6), (2, 8))
        fresh.double().load_state_dict(trained.state_dict(), strict=True)
        torch.testing.assert_close(fresh.state_dict(), trained.state_dict(), rtol=0, atol=0)

    @pytest.mark.parametrize(
        ('labels', 'message'),
        [(LABELS[:-1], 'of 30 samples in each bank, and this run of 29'), (LABELS.flip(0), 'other labels')],
    )
    def test_other_data(self, labels, message):
        trained, other = prepared(), prepared(labels=labels, seed=1)
        before = other.student_bank.clone()
        with pytest.raises(ValueError, match=message):
            other.check_resumed(trained.state_dict())
        with pytest.raises(RuntimeError, match=message):
            other.load_state_dict(trained.state_dict(), strict=True)
        assert torch.equal(other.student_bank, before)
        assert torch.equal(other.embed_student.weight, trained.embed_student.weight)

    def test_the_same_data(self):
        trained, other = prepared(), prepared(seed=1)
        trained(*taps(), torch.arange(N))
        other(*taps(), torch.arange(N))
        other.check_resumed(trained.state_dict())
        other.load_state_dict(trained.state_dict(), strict=True)
        for loss in (trained, other):
            torch.manual_seed(4)
            loss.value = loss(*taps(seed=2), torch.arange(N))
        assert other.value == trained.value
        torch.testing.assert_close(other.state_dict(), trained.state_dict(), rtol=0, atol=0)

    def test_a_loss_that_had_begun_goes_back_to_one_that_had_not(self):
        """Which of both it is, is read off the buffers again."""
        trained = prepared()
        start = {key: value.clone() for key, value in trained.state_dict().items()}
        torch.manual_seed(3)
        first = trained(*taps(), torch.arange(N))
        trained(*taps(), torch.arange(N))
        trained.load_state_dict(start)
        torch.manual_seed(3)
        assert trained(*taps(), torch.arange(N)) == first
