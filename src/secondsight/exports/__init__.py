"""Ways out: a pair's numbers as a table, its regions as COCO's JSON, both as labels of FiftyOne."""
