"""The promoted library of the course: one module a chapter, generated from the notebook of the same name.

`lecture_lib.course` is the exception: the hand-written machinery that runs the course.
"""
