"""Published results looked at again: recheck, contest, drift, remeasure, intake by evidence."""
