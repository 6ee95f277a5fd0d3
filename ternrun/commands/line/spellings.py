"""Flags of llama.cpp, Ollama, vLLM and Hugging Face's tools, and what each one means to ternrun.

A flag maps to rules; the first one that applies to the command decides. Underscores count as dashes.
"""

from __future__ import annotations

from typing import NamedTuple


class Same(NamedTuple):
    """Another spelling of a flag of ours; `prefix` is put in front of the value. Applies where the command has it."""

    flag: str
    prefix: str = ""


class Idle(NamedTuple):
    """A flag that changes nothing here. Applies where the command has the flag `where`.

    `values`: 0 or 1 values follow, or "?" where a value may follow. `only`: values that change nothing; any other is
    refused with `why`.
    """

    why: str
    values: int | str = 0
    only: tuple[str, ...] = ()
    where: str = "--model"


class Refused(NamedTuple):
    """A flag whose effect ternrun cannot give, and what to do instead. Applies where the command has `where`."""

    advice: str
    where: str = "--model"


Rule = Same | Idle | Refused

GPU = "the model runs on the CPU"
MEMORY = "a model's file is mapped into memory"
SPEED = "ternrun chooses this for the CPU"
ALWAYS = "this is always on"
LOGGING = "ternrun logs little, and to standard error"
PARALLEL = "one process runs the whole model"
TEMPLATES = "chat templates and tool calls need no flag"
WORKS = "--work pp512,tg128 names what is measured"
FILE = "the model's file decides this"


def _each(names: str, *rules: Rule) -> dict[str, tuple[Rule, ...]]:
    return dict.fromkeys(names.split(), rules)


def _default(name: str) -> Same:
    """A flag of sampling, where the command serves: what requests get that do not say."""
    return Same("--default", f"{name}=")


SPELLINGS: dict[str, tuple[Rule, ...]] = {
    # the model
    **_each("-hf -hfr --hf-repo --repo-id", Same("--model", "hf:")),
    **_each("-mu --model-url --model-path --model-id", Same("--model")),
    **_each("-hff --hf-file", Refused("write -hf OWNER/NAME:QUANT, or -m hf:OWNER/NAME/FILE")),
    **_each("-hft --hf-token", Refused("the token is read from the environment variable HF_TOKEN")),
    **_each("--offline", Refused("set the environment variable HF_HUB_OFFLINE=1")),
    **_each("-dr --docker-repo", Refused("models come from files and from the Hugging Face hub")),
    **_each("--lora --lora-scaled --enable-lora --lora-modules", Refused("merge the adapter into the model first")),
    **_each("-mm --mmproj --mmproj-url --image --audio", Refused("models read text only")),
    **_each("--control-vector --control-vector-scaled", Refused("control vectors are not supported")),
    **_each("--override-kv --rope-scaling --rope-scale --rope-freq-base --rope-freq-scale --yarn-orig-ctx",
            Refused(f"{FILE}; `ternrun inspect` shows what it says")),
    **_each("-md --model-draft -hfd --hf-repo-draft --speculative-config",
            Refused("ternrun guesses tokens from the text itself, without a second model")),
    **_each("--draft --draft-max --draft-n --draft-min -ngld", Idle("there is no second model", 1)),
    **_each("--quantization -q", Idle(FILE, 1)),
    **_each("--dtype", Idle(FILE, 1)),
    **_each("--tokenizer --hf-config-path", Refused(FILE)),
    **_each("--trust-remote-code", Idle("no code of a model is ever run")),
    **_each("--local-dir --output-dir", Same("--to")),
    **_each("--outfile --output -o", Same("--out"), Refused("--json prints one JSON object", where="--work")),
    **_each("--outtype --quantize", Same("--type")),
    # text
    **_each("-f --file", Same("--text"), Refused("use `ternrun complete --chat -f FILE`", where="--plain")),
    **_each("-p --prompt", Refused(WORKS, where="--work"),
            Refused("type it, or use `ternrun complete --chat -p`", where="--plain")),
    **_each("-sys --system-prompt --system-message", Same("--system")),
    **_each("-sysf --system-prompt-file", Refused('write --system "$(cat FILE)"')),
    **_each("-bf --binary-file", Refused("-f reads a text file")),
    **_each("-cnv --conversation", Same("--chat"), Idle("chat is a conversation")),
    **_each("-st --single-turn", Same("--chat"), Refused("`ternrun complete --chat` answers one message")),
    **_each("-no-cnv --no-conversation", Idle("complete continues text unless --chat is given", where="--chat"),
            Same("--plain")),
    **_each("-i --interactive -if --interactive-first -mli --multiline-input",
            Refused("`ternrun chat` talks", where="--chat"), Idle("chat is a conversation")),
    **_each("-e --escape", Refused("text is taken as it is; a shell writes line breaks as $'one\\ntwo'")),
    **_each("--no-escape --simple-io -co --color --no-color", Idle("this is how ternrun works")),
    **_each("--in-prefix --in-suffix --in-prefix-bos", Refused("--chat uses the model's own template")),
    **_each("--verbose-prompt", Refused("`ternrun tokenize` shows the tokens of a text")),
    **_each("--prompt-cache --prompt-cache-all --prompt-cache-ro", Refused("prompts are cached within a process only")),
    **_each("--grammar --grammar-file -j --json-schema -jf --json-schema-file --format",
            Refused("`ternrun serve` takes grammars and schemas in requests")),
    **_each("--jinja --no-jinja --enable-auto-tool-choice --webui", Idle(TEMPLATES)),
    **_each("--tool-call-parser --reasoning-parser --chat-template-content-format", Idle(TEMPLATES, 1)),
    **_each("--reasoning-format", Idle("reasoning stays in the text", 1, ("none", "auto"))),
    **_each("--chat-template-kwargs", Same("--default", "chat_template_kwargs=")),
    # sampling
    **_each("-n", _default("max_tokens"), Refused(WORKS, where="--work")),
    **_each("--n-predict --predict --max-new-tokens --num-predict", Same("-n"),
            _default("max_tokens")),
    **_each("--n-gen --n-prompt", Refused(WORKS, where="--work")),
    **_each("--temp --temperature", _default("temperature")),
    **_each("-s --seed", _default("seed")),
    **_each("--top-k", _default("top_k")),
    **_each("--top-p", _default("top_p")),
    **_each("--min-p", _default("min_p")),
    **_each("--top-nsigma", Same("--top-n-sigma")),
    **_each("--samplers --xtc-probability --xtc-threshold --dry-multiplier --dynatemp-range --mirostat --top-n-sigma",
            Refused("requests name their own samplers", where="--port")),
    **_each("--typical-p", _default("typical_p")),
    **_each("--typical", Same("--typical-p"), _default("typical_p")),
    **_each("--repeat-penalty", _default("repeat_penalty")),
    **_each("--repetition-penalty", Same("--repeat-penalty"), _default("repeat_penalty")),
    **_each("--repeat-last-n", _default("repeat_last_n")),
    **_each("--presence-penalty", _default("presence_penalty")),
    **_each("--frequency-penalty", _default("frequency_penalty")),
    **_each("-r --reverse-prompt --stop-sequence", Same("--stop"), Same("--runs")),
    **_each("--repetitions", Same("--runs")),
    **_each("-l", Same("--logit-bias")),
    **_each("--logprobs-count", Same("--logprobs")),
    # how it runs
    **_each("--ctx-size --max-model-len --max-seq-len --num-ctx --n-ctx --context-length", Same("--context")),
    **_each("--n-threads --num-threads", Same("--threads")),
    **_each("-tb --threads-batch -td --threads-http --prio --prio-batch --poll --poll-batch", Idle(SPEED, 1)),
    **_each("-C --cpu-mask -Cr --cpu-range --cpu-strict --numa", Idle(SPEED, 1)),
    **_each("-ngl --gpu-layers --n-gpu-layers --num-gpu -sm --split-mode -ts --tensor-split -mg --main-gpu "
            "-ncmoe --n-cpu-moe -ot --override-tensor --gpu-memory-utilization", Idle(GPU, 1)),
    **_each("-nkvo --no-kv-offload -cmoe --cpu-moe --no-op-offload --enforce-eager", Idle(GPU)),
    **_each("-fa --flash-attn", Idle(SPEED, "?")),
    **_each("-dev", Same("--device")),
    **_each("--mlock --mmap --no-mmap -nr --no-repack --repack -dio --direct-io --check-tensors", Idle(MEMORY)),
    **_each("-b --batch-size -ub --ubatch-size --swap-space --block-size", Idle(SPEED, 1)),
    **_each("--warmup --no-warmup", Idle(SPEED)),
    **_each("-ctk --cache-type-k -ctv --cache-type-v --kv-cache-dtype",
            Idle("use --kv-type f16, f32 or int8 for keys and values", 1, ("f16", "auto"))),
    **_each("--tensor-parallel-size -tp --pipeline-parallel-size -pp --data-parallel-size -dp",
            Idle(PARALLEL, 1, ("1",))),
    **_each("--rpc", Refused(PARALLEL)),
    **_each("--keep", Refused("a text ends where the context is full", where="--chat"), Idle("requests say n_keep", 1)),
    **_each("--context-shift", Refused("a text ends where the context is full; `ternrun serve` has this")),
    **_each("--no-context-shift", Idle("this is the default")),
    **_each("-v --verbose", Same("--stats"), Idle(LOGGING)),
    **_each("--perf", Same("--stats"), Idle(LOGGING)),
    **_each("--no-perf --log-disable --log-prefix --log-timestamps --no-log-requests --disable-log-requests",
            Idle(LOGGING)),
    **_each("-lv --verbosity --log-verbosity --log-colors --log-level --uvicorn-log-level --keepalive",
            Idle(LOGGING, 1)),
    **_each("--log-file", Refused("write 2> FILE")),
    # the server
    **_each("-a --served-model-name", Same("--alias")),
    **_each("--hostname --listen", Same("--host")),
    **_each("--uds", Same("--unix-socket")),
    **_each("--ssl-cert-file --ssl-certfile", Same("--certificate")),
    **_each("--ssl-key-file --ssl-keyfile", Same("--private-key")),
    **_each("-np --parallel --max-num-seqs", Same("--max-batch")),
    **_each("--max-num-batched-tokens", Same("--prefill-chunk")),
    **_each("-to", Same("--timeout")),
    **_each("--no-webui --no-ui", Same("--no-page")),
    **_each("--allowed-origins --cors-origins", Same("--cors")),
    **_each("--embedding --embeddings --metrics --slots --props -cb --cont-batching --cache-prompt "
            "--enable-prefix-caching --enable-chunked-prefill -kvu --kv-unified", Idle(ALWAYS, where="--port")),
    **_each("-sps --slot-prompt-similarity --cache-reuse -cram --cache-ram", Idle(SPEED, 1, where="--port")),
    **_each("--reranking --rerank", Refused("reranking is not supported", where="--port")),
    **_each("--no-slots --no-cont-batching -nocb --no-cache-prompt --path --api-prefix --root-path",
            Refused("the server has no such choice", where="--port")),
    **_each("--task", Idle(FILE, 1, ("auto", "generate"), where="--port")),
}  # fmt: skip
