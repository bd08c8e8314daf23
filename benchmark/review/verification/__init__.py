"""A handed-in result is verified by evidence: what it claims of every image is measured again.

`files` needs no network: one run, one table, the published images. `proofs` asks the clean
prediction and every claimed certificate again. `attacks` attacks a part that nobody could predict.
`verify` runs them in this order and refuses at the first one that finds something.
"""
