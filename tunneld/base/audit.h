/* An audit log: one JSON object a line, to a file or to syslog, written by a thread of its own.
 *
 *   the loop ─ td_audit_end ─► ring of 1 MiB ─ whole lines ─► worker ─ write(2) or syslog(3)
 *
 * The loop never waits: when the ring is full, because the disk is full or slow, lines are dropped and counted, and the
 * next line that has room comes after one that says how many ("event":"dropped").  The worker tries again every second
 * and loses nothing of the ring meanwhile.  That it cannot write, and that it can again, is told in the ordinary log.
 * The worker opens the file as well. A disk or syslogd that does not answer stops it alone: a reload waits 100 ms for a
 * file to be opened and then goes on while lines wait, the start and the end of the process wait 2 s.
 *
 * A line has "time", "role" and "event", then what the caller adds.  Values are escaped as JSON and cut at 8 KiB, so
 * that no peer can forge a field, a line, or fill the log with one call. */
#ifndef TD_BASE_AUDIT_H
#define TD_BASE_AUDIT_H
#include "lib/json.h"
#include "tunneld/base/loop.h"

struct td_audit;
struct td_audit_line {
	struct td_audit *a;
	struct tnl_buf b;
	struct tnl_jw w;
};

/* spec: a path, made with mode 0600, or "syslog".  NULL: *why; what is there is no file, or one that everybody may
 * write, or it cannot be opened within 2 s. */
struct td_audit *td_audit_open(struct td_loop *l, const char *role, const char *spec, char *why, size_t cap);
/* What a reload makes of it: the same file is opened again (it may have been rotated), another one takes its place,
 * NULL closes it; what waits for the old one is still written there, by its worker.  *a changes only when it returns 0;
 * -1: *why. */
int td_audit_reload(struct td_audit **a, struct td_loop *l, const char *role, const char *spec, char *why, size_t cap);
void td_audit_close(
    struct td_audit *a); /* writes what is in the ring, as far as it can be written in 2 s; NULL is fine */

/* false: there is no audit log (a is NULL), and nothing to be added. */
bool td_audit_begin(struct td_audit *a, struct td_audit_line *l, const char *event);
void td_audit_str(struct td_audit_line *l, const char *key, const char *value); /* NULL or "": left out */
void td_audit_num(struct td_audit_line *l, const char *key, uint64_t value);
void td_audit_end(struct td_audit_line *l);
uint64_t td_audit_dropped(const struct td_audit *a); /* lines, since the start */

#endif
