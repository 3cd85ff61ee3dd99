"""The numeric code: numpy, scipy and the standard library alone; arrays in, arrays out."""
