"""REST in front of the fleet: HTTP in, contract messages out, replies back to the byte."""
