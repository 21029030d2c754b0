# Stands for the shop: answers from its own small book, whatever is asked.
cat > /dev/null
case "$1" in
order) echo '{"item": "Wheel set 28 inch", "cents_paid": 18900}' ;;
articles) echo '{"articles": ["Damaged on arrival: half of the price paid is refunded."]}' ;;
esac
