/* Records that outlive a crash: a file of the state directory that says what is open, so that the next start can end
 * what the last process left behind. */
#ifndef TD_BASE_LEDGER_H
#define TD_BASE_LEDGER_H
#include "tunneld/base/loop.h"

/* NULL is fine everywhere: there is no state directory, and nothing is kept. */
struct td_ledger;

struct td_ledger_config {
	const char *dir;	   /* NULL: nothing is kept */
	const char *name;	   /* of the file */
	const char *module, *risk; /* for the line in the log when it cannot be written: "…; RISK" */
};
/* The strings but dir and name are borrowed.  What the file holds are records from now on. */
struct td_ledger *td_ledger_new(struct td_loop *l, const struct td_ledger_config *cfg);
/* id: not empty, no blank, one record each; note: one line, may be empty.  The file follows at the end of the turn. */
void td_ledger_add(struct td_ledger *g, const char *id, const char *note);
void td_ledger_del(struct td_ledger *g, const char *id);
/* The oldest first; fn may add records and delete the one that it is called for. */
void td_ledger_each(struct td_ledger *g, void (*fn)(void *ctx, const char *id, const char *note), void *ctx);
/* What is open stays in the file for the next start. */
void td_ledger_free(struct td_ledger *g);

#endif
