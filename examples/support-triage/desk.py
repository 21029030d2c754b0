"""A small service desk that keeps its files in `desk/`: one function for each tool, called as `desk.py NAME`.

Arguments come as JSON on standard input, the result goes to standard output. Stands in for the systems of a real shop.
"""
import json
import os
import sys
from pathlib import Path

DESK = Path("desk")
ORDERS = {
    "B-7741": {"customer": "jonas@farrell.example", "item": "Wheel set 28 inch", "cents_paid": 18900, "delivered": "2026-11-12"},
    "B-7802": {"customer": "p.moreau@example.net", "item": "Brake pads, 4 pairs", "cents_paid": 3960, "delivered": None},
}
ARTICLES = [
    "Damaged on arrival: refund up to the price paid, no return needed below 250 EUR.",
    "Delivery takes 3 to 5 working days. A parcel is traced after 8.",
    "Brake pads are worn in over the first 30 stops.",
]


def refuse(kind, message):
    """Ends the call with an error that has a type."""
    json.dump({"error": {"type": kind, "message": message}}, sys.stdout)
    sys.exit(1)


def write_once(path, value):
    """Writes a file unless it is there; a repeat finds what the first call wrote."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        new = path.with_suffix(".new")
        new.write_text(json.dumps(value))
        new.rename(path)
    return json.loads(path.read_text())


def file_of(key):
    return "".join(c if c.isalnum() else "-" for c in key) + ".json"


def find_order(args):
    return ORDERS.get(args["order_id"]) or refuse("NotFound", f"there is no order {args['order_id']}")


def search_articles(args):
    words = args["words"].lower().split()
    return {"articles": [a for a in ARTICLES if any(w in a.lower() for w in words)]}


def issue_refund(args):
    order = find_order(args)
    if args["cents"] > order["cents_paid"]:
        refuse("TooMuch", f"only {order['cents_paid']} cents were paid")
    return write_once(DESK / "refunds" / file_of(os.environ["WINDLASS_IDEMPOTENCY_KEY"]), {"refunded": args["cents"]})


def find_refund(args):
    path = DESK / "refunds" / file_of(args["effect_id"])
    return {"happened": path.exists(), "result": json.loads(path.read_text()) if path.exists() else None}


def set_priority(args):
    path = DESK / "priorities" / file_of(args["ticket_id"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(args["priority"]))
    return {"priority": args["priority"]}


def send_reply(args):
    DESK.mkdir(exist_ok=True)
    with open(DESK / "sent.jsonl", "a") as sent:
        sent.write(json.dumps(args) + "\n")
    return {"sent_to": args["to"]}


TOOLS = {f.__name__: f for f in (find_order, search_articles, issue_refund, find_refund, set_priority, send_reply)}

if __name__ == "__main__":
    json.dump(TOOLS[sys.argv[1]](json.load(sys.stdin)), sys.stdout)
