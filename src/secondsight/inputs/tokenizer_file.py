"""A tokenizer from its file alone, without the library of models around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class TokenizerFile:
    """A `tokenizer.json`, with the part of a tokenizer of transformers that `HubTokens` uses.

    Special tokens go by BERT's names; those that the file has not are None. The file's own padding and length are not used.
    """

    is_fast = True

    def __init__(self, content: bytes) -> None:
        from tokenizers import Tokenizer

        self.backend: Tokenizer = Tokenizer.from_buffer(content)
        self.backend.no_padding()
        self.backend.no_truncation()
        self.pad_token_id = self._id("[PAD]")
        self.unk_token_id = self._id("[UNK]")
        self.cls_token_id = self._id("[CLS]")
        self.sep_token_id = self._id("[SEP]")
        self.mask_token_id = self._id("[MASK]")
        self.bos_token_id = self.eos_token_id = None

    def _id(self, token: str) -> int | None:
        number: int | None = self.backend.token_to_id(token)
        return number

    def __len__(self) -> int:
        return int(self.backend.get_vocab_size())

    def __call__(
        self, text: str, *, truncation: bool = False, max_length: int | None = None, **_: bool
    ) -> dict[str, list[Any]]:
        """Ids and (start, end) offsets of a text's tokens, the special ones around them; cut to `max_length` if asked."""
        words = self.backend.encode(text, add_special_tokens=False)
        if truncation and max_length is not None:
            words.truncate(max_length - self.backend.num_special_tokens_to_add(False))
        encoding = self.backend.post_process(words)
        return {"input_ids": encoding.ids, "offset_mapping": encoding.offsets}

    def convert_ids_to_tokens(self, token: int) -> str:
        """A token's spelling."""
        return str(self.backend.id_to_token(token))
