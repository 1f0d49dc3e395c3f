import os

import pytest
import torch
from pydantic import ValidationError
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from perdure.errors import IntegrityError, ModelError, SettingError, UnknownNameError
from perdure.tuning.grouping import GroupingConfig, Groups, GroupsState
from perdure.tuning.phrasings import PHRASINGS
from perdure.tuning.similarity import (
    SentenceEncoder,
    Similarities,
    TfidfEncoder,
    TfidfState,
    built_in_similarities,
    encoder_of,
    likeness,
    separation,
)

RETURNS = [
    "Decide whether the customer may return the item.",
    "Can this product be sent back? Answer yes or no.",
    "Is a return allowed in the following case?",
    "Read the request and say if the customer is entitled to return the purchase.",
    "Check whether the item may be returned under our rules.",
    "Tell if the buyer can give the product back.",
    "State whether a return of the goods is possible.",
    "Judge if the following return request is to be accepted.",
    "Does the customer have the right to send the item back?",
    "Answer yes if the product may be returned, otherwise no.",
]
INVOICES = ["Extract the invoice number, the date and the total amount as JSON."]
POEMS = ["Compose a haiku about autumn leaves."]


@pytest.fixture(scope="module")
def encoder():
    return TfidfEncoder.fitted()


@pytest.fixture
def groups(encoder):
    return Groups(encoder)


def test_an_identical_instruction_has_similarity_one(groups):
    assert groups.join("first", INVOICES).opened
    joined = groups.join("second", INVOICES)
    assert joined.similarity == pytest.approx(1.0)
    assert (joined.group, joined.opened) == ("g1", False)


def test_other_work_opens_a_group_and_names_the_nearest(groups):
    groups.join("returns", RETURNS[:3])
    groups.join("poems", POEMS)
    joined = groups.join("invoices", INVOICES)
    assert joined.opened
    assert joined.group == "g3"
    before = groups.similarities(INVOICES)
    assert joined.similarity == before[joined.nearest] == max(before["g1"], before["g2"])
    assert "threshold" in joined.reason
    assert groups.names == ("g1", "g2", "g3")


def test_instructions_of_stop_words_do_not_crash(groups):
    groups.join("a", ["the of and to"])
    assert groups.join("b", ["the of and to"]).group == "g1"
    assert groups.join("c", ["is it"]).opened


@pytest.mark.parametrize("texts", [[], ["", "  "], ["?! ..."]])
def test_no_instruction_at_all_is_refused(groups, texts):
    with pytest.raises(SettingError, match="no instruction"):
        groups.join("empty", texts)


def test_words_that_the_corpus_does_not_have_still_match_themselves(groups):
    groups.join("chinese", ["把句子翻译成英文"])
    assert groups.join("again", ["把句子翻译成英文"]).similarity == pytest.approx(1.0)


def test_a_group_of_ten_wordings_matches_itself(groups, encoder):
    groups.join("returns", RETURNS)
    groups.join("invoices", INVOICES)
    assert groups.join("same again", RETURNS).similarity == pytest.approx(1.0)
    vectors = encoder.encode(RETURNS)
    pairs = (vectors @ vectors.T)[~torch.eye(10, dtype=torch.bool)]
    assert pairs.mean() < 0.25  # what a mean over all pairs makes of it
    others = encoder.encode([*INVOICES, *POEMS, *PHRASINGS[2]])
    for index in range(10):
        rest = torch.cat([vectors[:index], vectors[index + 1 :]])
        own = likeness(vectors[index : index + 1], rest)
        assert own > likeness(vectors[index : index + 1], others), RETURNS[index]


def test_order_within_a_group_does_not_matter(encoder):
    found = []
    for order in (RETURNS, RETURNS[::-1], [*RETURNS[5:], *RETURNS[:5], RETURNS[0]]):
        groups = Groups(encoder)
        groups.join("returns", order)
        groups.join("poems", POEMS)
        found.append((groups.similarities(["May I send this back?"]), groups.threshold(), groups.state()))
    assert found[0] == found[1] == found[2]


def test_the_cap_holds_and_the_choice_is_logged(encoder):
    groups = Groups(encoder, GroupingConfig(cap=2))
    for name, texts in {"returns": RETURNS, "invoices": INVOICES}.items():
        groups.join(name, texts)
    joined = groups.join("poems", POEMS)
    assert not joined.opened
    assert joined.group == joined.nearest
    assert len(groups.names) == 2
    assert "all 2 are in use" in groups.log[-1]


def test_a_task_that_joins_again_stays(groups):
    groups.join("returns", RETURNS[:2])
    assert groups.join("returns", POEMS).group == "g1"
    assert groups.tasks["returns"].instructions == tuple(sorted([*RETURNS[:2], *POEMS]))


def test_another_task_of_the_same_name_is_judged_and_named_apart(groups):
    groups.join("train", RETURNS[:2], "1" * 64)
    assert groups.join("train", RETURNS[:2], "1" * 64).reason == "is in g1 already"
    other = groups.join("train", INVOICES, "2" * 64)
    assert (other.task, other.group, other.opened) == ("train-22222222", "g2", True)
    assert other.reason.endswith("another task is called train")
    assert groups.join("train", INVOICES, "2" * 64).reason == "is in g2 already"
    groups = Groups.resumed(GroupsState.model_validate_json(groups.state().model_dump_json()))
    assert groups.join("train", INVOICES, "2" * 64).task == "train-22222222"
    assert groups.join("train", RETURNS[:1]).group == "g1"


def test_a_merge_is_undone_by_parting(groups):
    groups.join("cause", ["Label the causal direction of the two events."])
    groups.join("inverse", ["Label the causal direction of the two events."])
    assert groups.members("g1") == ("cause", "inverse")
    joined = groups.part("inverse")
    assert (joined.group, joined.nearest, joined.opened) == ("g2", "g1", True)
    assert groups.members("g1") == ("cause",)
    with pytest.raises(SettingError, match="alone"):
        groups.part("inverse")
    with pytest.raises(UnknownNameError):
        groups.part("nobody")
    with pytest.raises(UnknownNameError):
        groups.members("g9")


def test_parting_respects_the_cap(encoder):
    groups = Groups(encoder, GroupingConfig(cap=1))
    groups.join("a", POEMS)
    groups.join("b", INVOICES)
    with pytest.raises(SettingError, match="cap"):
        groups.part("b")


def test_a_set_threshold_is_used(encoder):
    loose = Groups(encoder, GroupingConfig(threshold=-1.0))
    loose.join("a", POEMS)
    assert not loose.join("b", INVOICES).opened
    assert loose.threshold().reason == "as set"


def test_the_threshold_is_calibrated_on_the_project_once_it_says_enough(groups):
    groups.join("returns", RETURNS)
    assert groups.threshold().reason == "calibrated on the project's tasks (within)"
    for index, wordings in enumerate(PHRASINGS[:3]):
        groups.tasks[f"task {index}"] = groups.tasks["returns"].model_copy(
            update={"group": f"g{index + 2}", "instructions": wordings}
        )
    assert groups.threshold().reason == "calibrated on the project's tasks (within and between)"
    vectors = {name: groups.encoder.encode(task.instructions) for name, task in groups.tasks.items()}
    assert groups.threshold().value == separation(vectors).threshold()


def test_tasks_of_one_group_do_not_count_as_apart(encoder):
    vectors = {name: encoder.encode([text]) for name, text in zip("abc", [*INVOICES, *INVOICES, *POEMS], strict=True)}
    assert max(separation(vectors).between) == pytest.approx(1.0)
    together = separation(vectors, {"a": "g1", "b": "g1", "c": "g2"})
    assert len(together.between) == 3
    assert max(together.between) < 0.5
    assert together.within == ()


@pytest.mark.parametrize(
    ("within", "between", "expected"),
    [((0.8, 0.9), (0.1, 0.2), 0.5), ((0.3, 0.8, 0.9, 0.95), (0.1, 0.2, 0.4, 0.5), 0.65)],
)
def test_thresholds_by_hand(within, between, expected):
    assert Similarities(within, between).threshold() == pytest.approx(expected)


def test_a_threshold_needs_both_kinds():
    with pytest.raises(SettingError, match="within"):
        Similarities((), (0.1,)).threshold()


def test_state_is_json_and_goes_on_as_before(groups):
    groups.join("returns", RETURNS)
    groups.join("poems", POEMS)
    text = groups.state().model_dump_json()
    again = Groups.resumed(GroupsState.model_validate_json(text))
    assert again.state() == groups.state()
    assert again.similarities(INVOICES) == groups.similarities(INVOICES)
    assert again.join("invoices", INVOICES) == groups.join("invoices", INVOICES)
    assert again.log == groups.log


def test_a_tampered_state_is_refused():
    for bad in ({"documents": 1, "frequencies": {"99999": 1}}, {"documents": 0, "frequencies": {}}):
        with pytest.raises(ValidationError):
            TfidfState.model_validate(bad)


def test_the_built_in_instructions_tell_most_work_apart(encoder):
    found = built_in_similarities(encoder)
    limit = found.threshold()
    assert len(found.within) == len(found.between) == 80
    assert sum(value >= limit for value in found.within) / 80 > 0.8
    assert sum(value < limit for value in found.between) / 80 > 0.75


def sentence_folder(folder, seed=0):
    letters = {char: index + 3 for index, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(vocab={"<pad>": 0, "<s>": 1, "</s>": 2, **letters}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", model_max_length=300).save_pretrained(folder)
    torch.manual_seed(seed)
    sizes = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    BertModel(BertConfig(vocab_size=300, max_position_embeddings=300, **sizes)).save_pretrained(folder)
    return str(folder)


def test_a_sentence_encoder_pools_what_is_not_padding(tmp_path):
    encoder = SentenceEncoder(sentence_folder(tmp_path / "encoder"))
    alone = torch.cat([encoder.encode([text]) for text in (*POEMS, *INVOICES)])
    together = encoder.encode([*POEMS, *INVOICES, "..."])
    assert torch.allclose(alone, together[:2], atol=1e-5)
    assert torch.allclose(together[:2].norm(dim=1), torch.ones(2).double())
    assert not together[2].any()
    assert encoder.encode(["a" * 500]).shape == (1, 16)


def test_a_sentence_encoder_is_known_by_its_weights(tmp_path):
    folder = sentence_folder(tmp_path / "encoder")
    state = SentenceEncoder(folder).state()
    assert encoder_of(state).state() == state
    sentence_folder(tmp_path / "encoder", seed=1)
    with pytest.raises(IntegrityError, match="other weights"):
        encoder_of(state)
    with pytest.raises(ModelError, match="no sentence encoder"):
        SentenceEncoder(str(tmp_path / "nowhere"))


@pytest.mark.skipif("PERDURE_MINILM" not in os.environ, reason="set PERDURE_MINILM to a folder of all-MiniLM-L6-v2")
def test_minilm_tells_the_wordings_of_one_task_from_other_work():
    groups = Groups(SentenceEncoder(os.environ["PERDURE_MINILM"]))
    groups.join("returns", RETURNS[:5])
    assert not groups.join("returns in other words", RETURNS[5:]).opened
    assert groups.join("poems", POEMS).opened
    assert groups.join("invoices", INVOICES).opened
