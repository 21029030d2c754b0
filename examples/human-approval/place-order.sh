#!/bin/sh
# Places an order once for each key: a repeat with the same key finds the order that is there. Stands in for a shop's API.
set -eu
mkdir -p orders
name=$(printf '%s' "$WINDLASS_IDEMPOTENCY_KEY" | tr -c 'A-Za-z0-9' '-')
if [ ! -e "orders/$name" ]; then
  cat > "orders/.$name.new"
  mv "orders/.$name.new" "orders/$name"
fi
printf '{"output": {"order_number": "PO-%s"}}\n' "$(cksum < "orders/$name" | cut -d ' ' -f 1)"
