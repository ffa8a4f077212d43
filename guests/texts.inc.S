/* What a guest prints about itself. Who includes this defines NAME, an .ascii. */
start_text:
    NAME
    .asciz "-START\n"
sum_text:
    NAME
    .asciz "-SUM "
done_text:
    .ascii "\n"
    NAME
    .asciz "-DONE\n"
unexpected_text:
    .ascii "\n"
    NAME
    .asciz "-UNEXPECTED "
