"""Vectors as signed files: the same bits come back, and nothing else is taken."""

import json
import os
import pickle
import stat
import struct

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save, save_file

import tiny
import vector_sample as sample
from perdure import signing
from perdure.content import digest_tensor
from perdure.errors import IntegrityError, ModelError, RefusedError, SettingError, UnsafeFileError
from perdure.models import layout_of
from perdure.vectors.headers import origin_of
from perdure.vectors.sharing import import_vector, read_vector, write_vector

HERE = [sample.origin()]


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    return signing.new_key(tmp_path_factory.mktemp("keys") / "signing.pem")


@pytest.fixture(scope="module")
def trusted(key):
    return {signing.fingerprint(signing.public_part(key))}


@pytest.fixture
def file(tmp_path, key):
    path = tmp_path / "past.vector.safetensors"
    write_vector(path, sample.shared().signed(key))
    return path


def rewritten(path, change, key=None):
    """The file with its header (parsed) changed, as somebody would who knows the format; signed anew with a key."""
    shared = read_vector(path)
    header = shared.header.model_dump(mode="json")
    change(header)
    if key is not None:
        header["signature"] = None
        unsigned = {name: value for name, value in header.items() if name != "signature"}
        message = json.dumps(unsigned, sort_keys=True, separators=(",", ":"))
        numbers = signing.sha256(shared.vector_D.numpy().tobytes()).hexdigest()
        header["signature"] = signing.sign(key, f"perdure function vector 1\n{message}\n{numbers}".encode())
    text = json.dumps(header, sort_keys=True, separators=(",", ":"))
    path.write_bytes(save({"vector": shared.vector_D}, {"perdure.vector": text}))


def test_a_vector_comes_back_bit_for_bit(file, trusted):
    found = import_vector(file, trusted=trusted, models=HERE)
    assert torch.equal(found.vector_D, sample.vector().float())
    assert found.header.model_copy(update={"key": None, "signature": None}) == sample.shared().header
    assert found.header.norm == pytest.approx(float(sample.vector().norm()), rel=1e-6)
    assert found.data == file.read_bytes()
    assert {found.fingerprint} == trusted


def test_the_file_is_what_the_library_would_write_and_reads(file):
    with safe_open(file, framework="pt") as stream:
        metadata, tensor = stream.metadata(), stream.get_tensor("vector")
    assert torch.equal(tensor, sample.vector().float())
    assert save({"vector": tensor}, metadata) == file.read_bytes()
    assert json.loads(metadata["perdure.vector"])["name"] == "present_past"


def test_the_same_vector_has_the_same_bytes_and_words_of_the_signer_are_signed(key, tmp_path, trusted):
    assert sample.shared().signed(key).data == sample.shared().signed(key).data
    named = sample.shared(signer="Sato, Ltd.", time="2026-01-01").signed(key)
    path = tmp_path / "x.safetensors"
    write_vector(path, named)
    assert import_vector(path, trusted=trusted, models=HERE).header.signer == "Sato, Ltd."
    rewritten(path, lambda header: header.update(signer="Mori"))
    with pytest.raises(IntegrityError, match="signature is wrong"):
        read_vector(path)


def test_no_single_byte_can_be_changed(file, trusted):
    whole = file.read_bytes()
    places = sorted({*range(16), *range(16, len(whole), 7), *range(len(whole) - 8, len(whole))})
    for place in places:
        for flip in (0x01, 0x20):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
            with pytest.raises((IntegrityError, UnsafeFileError)):
                import_vector(file, trusted=trusted, models=HERE)
    for cut in (0, 4, 8, 100, len(whole) - 4, len(whole) - 1):
        file.write_bytes(whole[:cut])
        with pytest.raises(IntegrityError):
            read_vector(file)
    file.write_bytes(whole + b"\0\0\0\0")
    with pytest.raises(IntegrityError):
        read_vector(file)


@pytest.mark.parametrize(
    "change",
    [
        {"layer": 1},
        {"digest": "d" * 64},
        {"heads": [[2, 1]]},
        {"in_context": {"n": 25, "clean": 25, "shuffled": 0}},
        {"model": sample.origin(weights="e" * 64).model_dump()},
    ],
)
def test_a_header_that_was_changed_by_somebody_who_knows_the_form_is_noticed(file, change):
    rewritten(file, lambda header: header.update(change))
    with pytest.raises(IntegrityError, match="signature is wrong"):
        read_vector(file)


def test_another_spelling_of_the_same_header_is_no_copy(file):
    length = struct.unpack("<Q", file.read_bytes()[:8])[0]
    header, numbers = file.read_bytes()[8 : 8 + length], file.read_bytes()[8 + length :]
    other = header.replace(b"present_past", b"present\\\\u005fpast")
    assert json.loads(json.loads(other)["__metadata__"]["perdure.vector"])["name"] == "present_past"
    file.write_bytes(struct.pack("<Q", len(other)) + other + numbers)
    with pytest.raises(IntegrityError, match="bytes are not those"):
        read_vector(file)


def test_a_signature_of_another_key_or_of_another_vector_is_wrong(file, key, tmp_path):
    other = signing.new_key(tmp_path / "other.pem")
    foreign = sample.shared(sample.vector(1)).signed(key).header.signature
    for change in ({"key": signing.public_part(other)}, {"signature": foreign}, {"signature": "0" * 128}):
        file.unlink()
        write_vector(file, sample.shared().signed(key))
        rewritten(file, lambda header, change=change: header.update(change))
        with pytest.raises(IntegrityError, match="signature is wrong"):
            read_vector(file)


def test_unknown_signers_are_refused_and_unsigned_files_unless_asked_for(file, tmp_path, trusted):
    with pytest.raises(RefusedError, match="not among the 1 trusted") as refused:
        import_vector(file, trusted={"0" * 64}, models=HERE)
    assert next(iter(trusted)) in str(refused.value)
    plain = tmp_path / "plain.vector.safetensors"
    write_vector(plain, sample.shared())
    with pytest.raises(RefusedError, match="not signed"):
        import_vector(plain, trusted=set(), models=HERE)
    assert import_vector(plain, trusted=set(), models=HERE, allow_unsigned=True).fingerprint is None
    with pytest.raises(RefusedError, match="not among"):
        import_vector(file, trusted=set(), models=HERE, allow_unsigned=True)


def test_a_signature_that_was_stripped_leaves_an_unsigned_file(file, trusted):
    rewritten(file, lambda header: header.update(key=None, signature=None))
    with pytest.raises(RefusedError, match="not signed"):
        import_vector(file, trusted=trusted, models=HERE)


def test_only_vectors_of_this_model_come_in(file, trusted):
    ask = {"trusted": trusted}
    with pytest.raises(ModelError, match=r"another architecture: layers 4, .*layers 5"):
        import_vector(file, models=[sample.origin(layers=5)], other_weights=True, **ask)
    child = [sample.origin(weights="e" * 64)]
    with pytest.raises(ModelError, match="same architecture with other weights"):
        import_vector(file, models=child, **ask)
    assert import_vector(file, models=child, other_weights=True, **ask).header.layer == 2
    with pytest.raises(ModelError, match="same weights with another config"):
        import_vector(file, models=[sample.origin(config="e" * 64)], **ask)
    assert import_vector(file, models=[*child, *HERE], **ask).header.layer == 2


@pytest.mark.parametrize("name", ["x.pt", "x.bin", "x.pkl", "x.npy"])
def test_a_pickle_is_refused_by_its_ending(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(UnsafeFileError, match="pickle"):
        read_vector(tmp_path / name)


def test_a_pickle_is_refused_by_its_content_and_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "trapped"),))

    path = tmp_path / "x.vector.safetensors"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UnsafeFileError, match="pickle"):
        read_vector(path)
    torch.save({"vector": sample.vector()}, path)
    with pytest.raises(UnsafeFileError, match="pickle"):
        read_vector(path)
    path.write_bytes(pickle.dumps(Trap(), protocol=0))
    with pytest.raises(IntegrityError):
        read_vector(path)
    assert not (tmp_path / "trapped").exists()


def test_other_files_are_refused(tmp_path, key):
    path = tmp_path / "x.safetensors"
    save_file({"vector": sample.vector().float()}, path)
    with pytest.raises(IntegrityError, match="no vector of perdure"):
        read_vector(path)
    path.write_text("vector")
    with pytest.raises(IntegrityError):
        read_vector(path)
    with pytest.raises(IntegrityError, match="cannot be read"):
        read_vector(tmp_path / "missing.safetensors")
    with pytest.raises((UnsafeFileError, IntegrityError)):
        read_vector(tmp_path)
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(UnsafeFileError, match="plain file"):
        read_vector(tmp_path / "pipe.safetensors")


def test_absurd_sizes_are_refused_before_anything_is_read(tmp_path):
    path = tmp_path / "x.safetensors"
    with path.open("wb") as stream:
        stream.truncate((64 << 20) + 1)
    with pytest.raises(UnsafeFileError, match="67,108,865 bytes"):
        read_vector(path)
    for length in (2**64 - 1, 2**63, 3 << 20, 0, 1):
        path.write_bytes(struct.pack("<Q", length) + b"{" * (4 << 20))
        with pytest.raises(IntegrityError, match="cut off"):
            read_vector(path)
    path.write_bytes(struct.pack("<Q", 1 << 20) + b"[" * (1 << 20))
    with pytest.raises(IntegrityError, match="damaged"):
        read_vector(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "format"),
        ({"more": 1}, "more"),
        ({"name": "a\u202eb"}, "printable"),
        ({"name": ""}, "name"),
        ({"heads": [[4, 0]]}, "does not have"),
        ({"heads": [[0, 4]]}, "does not have"),
        ({"heads": [[0, 1], [0, 1]]}, "twice"),
        ({"heads": [[-1, 0]]}, "heads"),
        ({"layer": 4}, "does not have"),
        ({"norm": 1.0}, "norm"),
        ({"key": None}, "without a signature"),
        ({"settings": {"pairs": [["a", "b"]]}}, "settings"),
        ({"model": sample.origin(hidden=31).model_dump()}, "bytes are not those"),
    ],
)
def test_a_header_that_cannot_be_is_refused_even_when_signed(file, key, change, said):
    rewritten(file, lambda header: header.update(change), key)
    with pytest.raises(IntegrityError, match=said):
        read_vector(file)


def test_numbers_that_are_not_finite_are_refused_on_both_ways(tmp_path, key):
    broken = sample.vector()
    broken[3] = float("nan")
    with pytest.raises(ModelError, match="NaN"):
        sample.shared(broken)
    path = tmp_path / "x.safetensors"
    fine = sample.shared()
    write_vector(path, type(fine)(broken.float(), fine.header).signed(key))
    with pytest.raises(IntegrityError, match="NaN"):
        read_vector(path)


def test_what_cannot_be_described_is_refused(tmp_path):
    with pytest.raises(SettingError, match="name"):
        sample.shared(name="past\x1b[2J")
    with pytest.raises(ModelError, match="hidden size is 32"):
        sample.shared(torch.ones(31))
    with pytest.raises(SettingError, match=r"ends in .safetensors"):
        write_vector(tmp_path / "x.pt", sample.shared())
    write_vector(tmp_path / "x.safetensors", sample.shared())
    with pytest.raises(SettingError, match="exists"):
        write_vector(tmp_path / "x.safetensors", sample.shared())


def test_an_origin_is_that_of_the_weights_whatever_the_config_says_of_their_way():
    model, other = tiny.llama(), tiny.llama(seed=1)

    def origin(model, **config):
        hashes = {name: digest_tensor(tensor) for name, tensor in model.state_dict().items()}
        return origin_of(layout_of(model), hashes, {"rope_theta": 1e4, **config})

    first = origin(model, transformers_version="5.0", _name_or_path="here", dtype="float32")
    assert first == origin(model, transformers_version="5.1", _name_or_path="there")
    assert first.structure == (4, 4, 8, 32)
    assert first != origin(model, rope_theta=1e5)
    assert first.weights != origin(other).weights
    model.state_dict()["model.norm.weight"][0] += 1e-6
    assert origin(model).weights != first.weights


def test_a_key_is_for_its_owner_only(tmp_path):
    path = tmp_path / "keys" / "signing.pem"
    before = os.umask(0)
    try:
        key = signing.new_key(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert signing.public_part(signing.read_key(path)) == signing.public_part(key)
    with pytest.raises(SettingError, match="never replaced"):
        signing.new_key(path)
    path.chmod(0o640)
    with pytest.raises(UnsafeFileError, match="chmod 600"):
        signing.read_key(path)
    path.chmod(0o600)
    path.write_text("nothing")
    with pytest.raises(IntegrityError, match="no private key"):
        signing.read_key(path)


def test_keys_of_other_kinds_and_links_are_refused(tmp_path):
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    path = tmp_path / "x.pem"
    path.touch(0o600)
    path.write_bytes(X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(IntegrityError, match="another kind"):
        signing.read_key(path)
    (tmp_path / "link.pem").symlink_to(path)
    with pytest.raises(IntegrityError, match="no private key"):
        signing.read_key(tmp_path / "link.pem")


def test_a_signature_is_that_of_rfc_8032():
    """Section 7.1, test 2."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    secret = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))
    public = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    signature = (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert signing.public_part(key) == public
    assert signing.sign(key, b"\x72") == signature
    assert signing.is_signed(public, signature, b"\x72")
    assert not signing.is_signed(public, signature, b"\x73")
    assert not signing.is_signed("ff" * 32, signature, b"\x72")


def test_a_fingerprint_is_whole_or_none():
    whole = signing.fingerprint("00" * 32)
    assert whole == "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925"
    assert signing.short(whole) == "6668 7aad f862 bd77"
    assert signing.checked_fingerprint(f" {whole[:32].upper()} {whole[32:]}") == whole
    with pytest.raises(SettingError, match="64 hexadecimal digits"):
        signing.checked_fingerprint(signing.short(whole))
