/* What the last of some words could become, for the shells' completion. */
#ifndef TD_COMMAND_COMPLETE_H
#define TD_COMMAND_COMPLETE_H
#include "tunneld/command/command.h"

/* words: behind "tunneld", the last one being typed.  Candidates on stdout, one a line. */
void td_complete(const struct td_command *const *commands, size_t ncommands, char **words, int n);

#endif
