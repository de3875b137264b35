#!/usr/bin/env python3
"""Makes models.toml, the table of model prices that comes with Toolgauge, of the PyPI package `genai-prices` (MIT licence).

    python3 -m venv venv && venv/bin/pip install genai-prices && venv/bin/python generate.py [DATE]

DATE is what the table calls its day (today, if left out). It also makes models_check.csv: what that package itself computes for
every model of the table, which a test compares to the last billionth of a dollar.

Taken are list prices per token of text and per request, by date. Left out are prices of sound, pictures, pages and searches, of batches and
service tiers, of caches that live for an hour, and models whose price depends on the time of day.
"""

import datetime
import importlib.metadata
import re
import sys
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path

from genai_prices import Usage
from genai_prices.data import providers
from genai_prices.types import (
    ClauseAnd,
    ClauseContains,
    ClauseEndsWith,
    ClauseEquals,
    ClauseOr,
    ClauseRegex,
    ClauseStartsWith,
    ModelPrice,
    StartDateConstraint,
    TieredPrices,
)

# Nobody says who serves the model: then its maker is assumed. Some frameworks say their own name instead.
NOBODY = ["", "strands-agents", "autogen"]
AZURE = ["azure*"]
GOOGLE = ["google*", "gcp*", "*vertex*", "*gemini*"]

# What `gen_ai.provider.name` (or `gen_ai.system`, `llm.provider`) says of each; those that host the models of others come first.
HOSTS = {
    "azure": AZURE,
    "aws": ["aws*", "*bedrock*", "amazon*"],
    "groq": ["groq*"],
    "together": ["together*"],
    "fireworks": ["fireworks*"],
    "cerebras": ["cerebras*"],
    "perplexity": ["perplexity*"],
}
MAKERS = {
    "openai": ["openai*", *AZURE, *NOBODY],
    "anthropic": ["anthropic*", *AZURE, *GOOGLE, *NOBODY],
    "google": [*GOOGLE, *NOBODY],
    "mistral": ["mistral*", *NOBODY],
    "cohere": ["cohere*", *NOBODY],
    "deepseek": ["deepseek*", *AZURE, *NOBODY],
    "x-ai": ["x?ai*", "xai*", *AZURE, *NOBODY],
    "moonshotai": ["moonshot*", *AZURE, *NOBODY],
    "meta": ["meta*", *NOBODY],
    "minimax": ["minimax*", *NOBODY],
    "zhipuai": ["zhipu*", *NOBODY],
    "voyageai": ["voyage*", *NOBODY],
}

PRICES = {
    "input_mtok": "per_million_input_tokens",
    "cache_read_mtok": "per_million_cached_input_tokens",
    "cache_write_mtok": "per_million_cache_write_input_tokens",
    "output_mtok": "per_million_output_tokens",
    "output_reasoning_mtok": "per_million_reasoning_tokens",
}
DIGITS = re.compile(r"\\d(?:\{(\d+)\})?")


def literal(text):
    return re.sub(r"([*?\[])", r"[\1]", text.lower())


def globs(clause):
    """The patterns of a clause, or None if patterns cannot say it."""
    match clause:
        case ClauseEquals():
            return [literal(clause.equals)]
        case ClauseStartsWith():
            return [literal(clause.starts_with) + "*"]
        case ClauseEndsWith():
            return ["*" + literal(clause.ends_with)]
        case ClauseContains():
            return ["*" + literal(clause.contains) + "*"]
        case ClauseOr():
            found = [globs(part) for part in clause.or_]
            return [glob for part in found if part is not None for glob in part] or None
        case ClauseAnd():
            # The other halves keep models that speak apart; those have entries of their own, or none.
            starts = [part for part in clause.and_ if isinstance(part, ClauseStartsWith)]
            return globs(starts[0]) if len(starts) == 1 else None
        case ClauseRegex():
            text = clause.regex
            if not text.startswith("^"):
                return None
            text, tail = (text[1:-1], "") if text.endswith("$") else (text[1:], "*")
            text = DIGITS.sub(lambda found: "<>" * int(found.group(1) or 1), text)
            text = re.sub(r"\\(.)", r"\1", text.replace("[-@]", "~"))
            if re.search(r"[*+?()|\\]|\[(?!fast)", text):
                return None
            return [literal(text).replace("<>", "[0-9]").replace("~", "?") + tail]
    return None


def spoken(model):
    """Whether the model's patterns leave out those that speak."""
    return "[tT][tT][sS]" in repr(model.match)


def dated(prices):
    """(from, until, price), or None if the price depends on the time of day."""
    if isinstance(prices, ModelPrice):
        return [(None, None, prices)]
    if any(p.constraint is not None and not isinstance(p.constraint, StartDateConstraint) for p in prices):
        return None
    starts = [p.constraint.start_date if p.constraint else None for p in prices]
    # The last one that has begun holds.
    if any(b is None or (a is not None and b <= a) for a, b in zip(starts, starts[1:])):
        return None
    ends = starts[1:] + [None]
    # Before all of them the first one holds.
    return [(None if i == 0 else start, end, p.prices) for i, (start, end, p) in enumerate(zip(starts, ends, prices))]


def number(value):
    text = format(value.normalize(), "f")
    return text


def entry(models, provider, begin, end, price, name):
    base, tiers = {}, {}
    for key, ours in PRICES.items():
        value = getattr(price, key)
        if isinstance(value, TieredPrices):
            base[ours] = value.base
            for tier in value.tiers:
                tiers.setdefault(tier.start, {})[ours] = tier.price
        elif value is not None:
            base[ours] = value
    requests = getattr(price, "requests_kcount")
    if requests is not None and not isinstance(requests, TieredPrices):
        base["per_call"] = requests / 1000
    if not any(key in base for key in ("per_million_input_tokens", "per_million_output_tokens")):
        return None
    # A tier that is told of some prices only holds for the others from the tier before.
    lines = ["[[price]]", f"model = {array(models)}", f"provider = {array(provider)}"]
    if begin:
        lines.append(f"from = {begin}")
    if end:
        lines.append(f"until = {end}")
    lines += [f"{key} = {number(value)}" for key, value in base.items()]
    known = {}
    parts = []
    for start in sorted(tiers):
        known |= tiers[start]
        fields = ", ".join(f"{key} = {number(value)}" for key, value in known.items())
        parts.append(f"{{ above_input_tokens = {start}, {fields} }}")
    if parts:
        lines.append(f"tiers = [{', '.join(parts)}]")
    return "\n".join(lines) + "\n"


def array(texts):
    texts = list(dict.fromkeys(texts))
    quoted = ", ".join(f'"{text}"' for text in texts)
    return quoted if len(texts) == 1 else f"[{quoted}]"


USAGES = [(1000, 0, 0, 500), (1000, 200, 100, 500), (300001, 200000, 50, 1234)]


def checks(provider, who, model, begin, end, price):
    """Lines of models_check.csv."""
    day = begin or (end - datetime.timedelta(days=1) if end else datetime.date(2026, 6, 1))
    noon = datetime.datetime.combine(day, datetime.time(12), tzinfo=datetime.timezone.utc)
    found = provider.find_model(model.id)
    if found is not model:
        return
    for tokens in USAGES:
        total_in, cached, written, out = tokens
        usage = Usage(input_tokens=total_in, cache_read_tokens=cached, cache_write_tokens=written, output_tokens=out)
        try:
            cost = model.calc_price(usage, provider, genai_request_timestamp=noon).total_price
        except Exception:
            continue
        # They count a request whether the usage says so or not only if it is told.
        if getattr(price, "requests_kcount") is not None:
            continue
        nano = int((cost * 10**9).quantize(Decimal(1), rounding=ROUND_HALF_EVEN))
        yield f"{who},{model.id},{day},{total_in},{cached},{written},{out},{nano}\n"


def main():
    day = sys.argv[1] if len(sys.argv) > 1 else datetime.date.today().isoformat()
    version = importlib.metadata.version("genai-prices")
    folder = Path(__file__).parent
    by_id = {provider.id: provider for provider in providers}
    out, check, left_out = [], [], []
    for name, who in (HOSTS | MAKERS).items():
        provider = by_id[name]
        out.append(f"# {provider.name}\n\n")
        if any(spoken(model) for model in provider.models):
            speaking = [m for m in provider.models if "-tts" in m.id]
            patterns = [g for m in speaking for g in globs(m.match) or []] + ["gemini-*-tts", "gemini-*-tts-*"]
            out.append(f"[[price]]\nmodel = {array(patterns)}\nprovider = {array(who)}\nunpriced = true\n\n")
        for model in provider.models:
            patterns = globs(model.match)
            prices = dated(model.prices)
            if patterns is None or prices is None:
                left_out.append(f"{name}/{model.id}")
                if patterns is not None:
                    # Or a later pattern would take its calls.
                    out.append(f"[[price]]\nmodel = {array(patterns)}\nprovider = {array(who)}\nunpriced = true\n\n")
                continue
            for begin, end, price in prices:
                text = entry(patterns, who, begin, end, price, model.id)
                if text is None:
                    text = f"[[price]]\nmodel = {array(patterns)}\nprovider = {array(who)}\nunpriced = true\n"
                    left_out.append(f"{name}/{model.id}")
                elif "-tts" not in model.id:
                    called = who[0].replace("*", "").replace("?", "_")
                    check.extend(checks(provider, called, model, begin, end, price))
                out.append(text + "\n")
    head = f"""# Prices of models. Made by generate.py; do not edit.
about = "List prices of language models, in US dollars"
source = "PyPI genai-prices {version}, https://github.com/pydantic/genai-prices"
version = "{version}"
date = "{day}"
licence = "MIT, Copyright (c) Pydantic Services Inc. 2025 to present; the text is in LICENSE-genai-prices"

"""
    (folder / "models.toml").write_text(head + "".join(out).rstrip("\n") + "\n")
    (folder / "models_check.csv").write_text("".join(check))
    print(f"{sum(text.startswith('[[price]]') for text in out)} prices, {len(check)} checks")
    print(f"without a price: {', '.join(dict.fromkeys(left_out))}")


if __name__ == "__main__":
    main()
