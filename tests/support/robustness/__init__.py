"""Random calls of every public function, and the laws that all of them keep.

`subjects`   which functions; what is done with classes is in `scenarios`
`makers`     which parameter is given what: a table of the functions in `values`, which are made of `draws`
             (tensors of any dtype and layout) and `arrays` (numbers that are hard)
`spoiling`   arguments that are not what they should be
`calls`      one call, by seed and number
`laws`       what it keeps
`workers`    many calls; `__main__` is their command line
"""
