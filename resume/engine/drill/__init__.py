"""The drill: a run rehearsed and killed on purpose, what it was traced to do, and who is to blame (see rehearsal)."""
