"""The fleet operator's side: publish plugins, sign deployments, watch what nodes say.

Usable without the command line: nothing here prints, asks, or imports argparse or rich.
`edge-agent run` loads none of it.
"""
