"""Figures about the relay: what processes count, how the master adds it up, how it is shown.

Every process counts for itself in plain numbers and hands them to the master when
asked (`statistics`); the master adds what ended processes had counted, so that sums
never go back while it lives (`ledger`); the web role shows it all as OpenMetrics
(`exposition`).  No figure carries an address, and none a domain.
"""
