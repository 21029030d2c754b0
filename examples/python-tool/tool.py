import json
import sys


def shipping_cost(country: str, grams: int, express: bool = False) -> dict:
    base = {"DE": 490, "AT": 790, "CH": 1290}.get(country)
    if base is None:
        sys.exit(f"no rates for {country}")
    return {"cents": base + grams // 1000 * 80 + (900 if express else 0), "currency": "EUR"}


json.dump(shipping_cost(**json.load(sys.stdin)), sys.stdout)
