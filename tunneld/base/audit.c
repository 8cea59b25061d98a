/* The audit log: lines are made on the loop, put into a ring, and written by a worker.  What is said of it in the
 * ordinary log is said on the loop. */
#include "tunneld/base/audit.h"
#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/num.h"
#include "tunneld/base/log.h"
#include "tunneld/base/thread.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#define RING (1024u * 1024)
#define PIECE (64u * 1024) /* written at once; every line is much shorter */
#define LINE_MAX_BYTES (60u * 1024)
#define VALUE_MAX 8192u /* as long as a command may be */
#define AGAIN_S 1
#define END_S 2 /* what the start and the end of the process wait for a disk that does not answer */
#define NOT_A_FILE ENOTSUP
#define OPEN_TO_ALL ENOTUNIQ /* as no open(2) of a file ends */
#define RELOAD_NS 100000000  /* and a reload, during which nobody is served */

struct td_audit {
	struct td_loop *l; /* NULL: nobody is told any more; changes under mu */
	char *spec, role[16];
	bool syslog;
	pthread_t thread;
	ev_async told;
	bool said;	       /* on the loop: that it cannot be written */
	uint64_t lost, untold; /* lines: dropped so far, of those not yet said in the audit log */
	/* the worker's */
	int fd;
	char piece[PIECE];
	pthread_mutex_t mu;
	pthread_cond_t cond;
	/* under mu */
	char *ring;
	size_t start, used;
	bool stop, reopen;
	bool opened;	/* the worker has tried to open it */
	bool waited;	/* by whoever wants to know how that went */
	bool over;	/* the worker does no more with it */
	bool left;	/* it is the worker's to free: nobody waits for the worker */
	int err;	/* of the last write; 0: it went well */
	int reopen_err; /* the new file cannot be opened, the old one is gone on with */
};

/* --- the worker --------------------------------------------------------------------------- */

static int open_file(const char *path)
{
	struct stat st = {0};
	int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);
	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && !(st.st_mode & S_IWOTH))
		return fd;
	if (fd >= 0) {
		bool is_file = S_ISREG(st.st_mode);
		close(fd);
		errno = is_file ? OPEN_TO_ALL : NOT_A_FILE;
	}
	return -1;
}

static const char *open_fault(int err)
{
	return err == NOT_A_FILE    ? "is not a file"
	       : err == OPEN_TO_ALL ? "everybody may write it"
	       : err == ETIMEDOUT   ? "the disk does not answer"
				    : strerror(err);
}

static void tell(struct td_audit *a)
{
	pthread_mutex_lock(&a->mu);
	if (a->l)
		ev_async_send(a->l->ev, &a->told);
	pthread_mutex_unlock(&a->mu);
}

/* Whole lines from the ring, as many as fit. */
static size_t take_piece(struct td_audit *a)
{
	size_t n = TNL_MIN(a->used, (size_t)PIECE), first = TNL_MIN(n, RING - a->start);
	memcpy(a->piece, a->ring + a->start, first);
	memcpy(a->piece + first, a->ring, n - first);
	while (n && a->piece[n - 1] != '\n')
		n--;
	a->start = (a->start + n) % RING;
	a->used -= n;
	return n;
}

static void to_syslog(struct td_audit *a, size_t n)
{
	for (char *at = a->piece, *end; at < a->piece + n; at = end + 1) {
		end = memchr(at, '\n', (size_t)(a->piece + n - at));
		syslog(LOG_AUTHPRIV | LOG_INFO, "%.*s", (int)(end - at), at);
	}
}

static void set_err(struct td_audit *a, int err)
{
	pthread_mutex_lock(&a->mu);
	bool news = !a->err != !err;
	a->err = err;
	pthread_mutex_unlock(&a->mu);
	if (news)
		tell(a);
}

/* false: it is to stop, and the disk takes no more. */
static bool wait_for_disk(struct td_audit *a, int err)
{
	struct timespec at;
	set_err(a, err);
	clock_gettime(CLOCK_REALTIME, &at);
	at.tv_sec += AGAIN_S;
	pthread_mutex_lock(&a->mu);
	if (!a->stop)
		pthread_cond_timedwait(&a->cond, &a->mu, &at);
	bool stop = a->stop;
	pthread_mutex_unlock(&a->mu);
	return !stop;
}

static void open_again(struct td_audit *a)
{
	int fd = open_file(a->spec), err = fd < 0 ? errno : 0;
	if (fd >= 0) {
		close(a->fd);
		a->fd = fd;
		return;
	}
	pthread_mutex_lock(&a->mu);
	a->reopen_err = err;
	pthread_mutex_unlock(&a->mu);
	tell(a);
}

/* Asked to while it cannot write: the file may have been moved away for that.  The line that was cut goes whole into
 * the new one. */
static size_t open_meanwhile(struct td_audit *a, size_t done)
{
	pthread_mutex_lock(&a->mu);
	bool again = a->reopen;
	a->reopen = false;
	pthread_mutex_unlock(&a->mu);
	if (!again)
		return done;
	open_again(a);
	while (done && a->piece[done - 1] != '\n')
		done--;
	return done;
}

static bool to_file(struct td_audit *a, size_t n)
{
	for (size_t done = 0; done < n;) {
		ssize_t k = write(a->fd, a->piece + done, n - done);
		if (k > 0)
			done += (size_t)k;
		else if (k < 0 && errno == EINTR)
			continue;
		else if (!wait_for_disk(a, k < 0 ? errno : ENOSPC))
			return false;
		else
			done = open_meanwhile(a, done);
	}
	set_err(a, 0);
	return true;
}

static void audit_free(struct td_audit *a)
{
	if (a->fd >= 0)
		close(a->fd);
	pthread_mutex_destroy(&a->mu);
	pthread_cond_destroy(&a->cond);
	tnl_free(a->ring);
	tnl_free(a->spec);
	tnl_free(a);
}

static void end_worker(struct td_audit *a)
{
	pthread_mutex_lock(&a->mu);
	bool left = a->left;
	a->over = true;
	pthread_mutex_unlock(&a->mu);
	if (left)
		audit_free(a);
}

/* How it went, to whoever waits for that: true. Nobody does: what is said is said by on_told(). */
static bool answer_open(struct td_audit *a, int err)
{
	pthread_mutex_lock(&a->mu);
	bool waited = a->waited;
	a->opened = true;
	if (waited || !err)
		a->err = err;
	pthread_cond_broadcast(&a->cond);
	pthread_mutex_unlock(&a->mu);
	return waited;
}

/* open(2) of a disk that hangs stops its caller. false: there is nothing to be written into. */
static bool open_first(struct td_audit *a)
{
	if (a->syslog)
		openlog("tunneld", LOG_PID | LOG_NDELAY, LOG_AUTHPRIV);
	while (!a->syslog && (a->fd = open_file(a->spec)) < 0) {
		int err = errno;
		if (answer_open(a, err) || !wait_for_disk(a, err))
			return false;
	}
	if (!answer_open(a, 0))
		tell(a);
	return true;
}

static void *run_worker(void *arg)
{
	struct td_audit *a = arg;
	bool going = open_first(a);
	while (going) {
		pthread_mutex_lock(&a->mu);
		while (!a->used && !a->stop && !a->reopen)
			pthread_cond_wait(&a->cond, &a->mu);
		bool reopen = a->reopen;
		size_t n = take_piece(a);
		going = n > 0 || !a->stop;
		a->reopen = false;
		pthread_mutex_unlock(&a->mu);
		if (reopen && !a->syslog)
			open_again(a);
		if (a->syslog)
			to_syslog(a, n);
		else if (!to_file(a, n))
			break;
	}
	end_worker(a);
	return NULL;
}

/* --- lines -------------------------------------------------------------------------------- */

static void begin_line(struct td_audit *a, struct td_audit_line *l, const char *event)
{
	char time[TNL_ISO_STR];
	tnl_iso_date(a->l->wall_ms, time);
	l->a = a;
	tnl_buf_init(&l->b, LINE_MAX_BYTES);
	tnl_jw_init(&l->w, &l->b);
	tnl_jw_obj(&l->w);
	tnl_jw_kv(&l->w, "time", time);
	tnl_jw_kv(&l->w, "role", a->role);
	tnl_jw_kv(&l->w, "event", event);
}

void td_audit_str(struct td_audit_line *l, const char *key, const char *value)
{
	if (!value || !*value)
		return;
	size_t len = strlen(value), n = tnl_utf8_cut(value, len, VALUE_MAX);
	tnl_jw_key(&l->w, key);
	tnl_jw_strn(&l->w, value, n);
	if (n == len)
		return;
	char whole[64]; /* that it was cut shows */
	snprintf(whole, sizeof(whole), "%s_bytes", key);
	td_audit_num(l, whole, len);
}

void td_audit_num(struct td_audit_line *l, const char *key, uint64_t value)
{
	tnl_jw_kvi(&l->w, key, (int64_t)TNL_MIN(value, (uint64_t)INT64_MAX));
}

static bool put_ring(struct td_audit *a, const uint8_t *p, size_t n)
{
	if (RING - a->used < n)
		return false;
	size_t at = (a->start + a->used) % RING, first = TNL_MIN(n, RING - at);
	memcpy(a->ring + at, p, first);
	memcpy(a->ring, p + first, n - first);
	a->used += n;
	return true;
}

/* How many lines were dropped before this one; false: there is no room even for that. */
static bool tell_dropped(struct td_audit *a)
{
	struct td_audit_line l;
	begin_line(a, &l, "dropped");
	td_audit_num(&l, "lines", a->untold);
	tnl_jw_end_obj(&l.w);
	tnl_buf_putc(&l.b, '\n');
	bool ok = !l.b.failed && put_ring(a, tnl_buf_data(&l.b), tnl_buf_len(&l.b));
	tnl_buf_fini(&l.b);
	return ok;
}

/* --- on the loop -------------------------------------------------------------------------- */

static void on_told(struct ev_loop *ev, ev_async *w, int events)
{
	struct td_audit *a = w->data;
	pthread_mutex_lock(&a->mu);
	int err = a->err, reopen_err = a->reopen_err;
	a->reopen_err = 0;
	pthread_mutex_unlock(&a->mu);
	if (reopen_err)
		td_error("audit", NULL, "%s cannot be opened again, the old file is written on: %s", a->spec,
			 open_fault(reopen_err));
	if (err && !a->said)
		td_error("audit", NULL, "%s cannot be written, lines wait: %s", a->spec, open_fault(err));
	else if (!err && a->said)
		td_info("audit", NULL, "%s is written again dropped=%llu", a->spec, (unsigned long long)a->lost);
	a->said = err != 0;
}

/* The worker frees it, whenever it comes to its end; true: that was before, and nothing is left to it. */
static bool leave_to_worker(struct td_audit *a)
{
	pthread_t thread = a->thread;
	pthread_mutex_lock(&a->mu);
	bool over = a->over;
	a->left = !over;
	a->l = NULL;
	pthread_mutex_unlock(&a->mu);
	if (!over)
		pthread_detach(thread);
	return over;
}

/* How the worker's open(2) went: 0, an errno, ETIMEDOUT: it has not come back in time. */
static int wait_for_open(struct td_audit *a, const struct timespec *until)
{
	int rc = 0;
	pthread_mutex_lock(&a->mu);
	while (!a->opened && rc == 0)
		rc = pthread_cond_timedwait(&a->cond, &a->mu, until);
	if (!a->opened)
		a->err = ETIMEDOUT;
	a->waited = false;
	rc = a->err;
	pthread_mutex_unlock(&a->mu);
	return rc;
}

static struct td_audit *new_audit(struct td_loop *l, const char *role, const char *spec)
{
	struct td_audit *a = tnl_calloc(1, sizeof(*a));
	if (!a)
		return NULL;
	a->l = l;
	a->syslog = strcmp(spec, "syslog") == 0;
	a->fd = -1;
	a->waited = true;
	a->spec = tnl_strdup(spec);
	a->ring = tnl_malloc(RING);
	snprintf(a->role, sizeof(a->role), "%s", role);
	pthread_mutex_init(&a->mu, NULL);
	pthread_cond_init(&a->cond, NULL);
	ev_async_init(&a->told, on_told);
	a->told.data = a;
	if (a->spec && a->ring && td_thread_start(&a->thread, run_worker, a) == 0)
		return a;
	audit_free(a);
	return NULL;
}

static void give_up(struct td_audit *a)
{
	pthread_mutex_lock(&a->mu);
	a->stop = true;
	pthread_cond_broadcast(&a->cond);
	pthread_mutex_unlock(&a->mu);
	if (!leave_to_worker(a))
		return;
	pthread_join(a->thread, NULL);
	audit_free(a);
}

/* patient: nobody is served yet; else one that is opened late is written when it is. */
static struct td_audit *open_audit(struct td_loop *l, const char *role, const char *spec, bool patient, char *why,
				   size_t cap)
{
	struct timespec until;
	struct td_audit *a = new_audit(l, role, spec);
	snprintf(why, cap, "out of memory");
	if (!a)
		return NULL;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += patient ? 0 : RELOAD_NS;
	until.tv_sec += patient ? END_S : until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	int rc = wait_for_open(a, &until);
	if (rc != 0 && (patient || rc != ETIMEDOUT)) {
		snprintf(why, cap, "audit_log %s: %s", spec, open_fault(rc));
		give_up(a);
		return NULL;
	}
	ev_async_start(l->ev, &a->told);
	if (rc != 0)
		ev_async_send(l->ev, &a->told); /* that it waits is said */
	return a;
}

struct td_audit *td_audit_open(struct td_loop *l, const char *role, const char *spec, char *why, size_t cap)
{
	return open_audit(l, role, spec, true, why, cap);
}

static void begin_end(struct td_audit *a)
{
	pthread_mutex_lock(&a->mu);
	if (a->untold && RING - a->used > LINE_MAX_BYTES)
		(void)tell_dropped(a);
	a->stop = true;
	pthread_cond_signal(&a->cond);
	pthread_mutex_unlock(&a->mu);
	ev_async_stop(a->l->ev, &a->told);
}

static void free_ended(struct td_audit *a)
{
	if (a->used || a->err)
		td_error("audit", NULL, "%s could not be written to its end: %s", a->spec, open_fault(a->err));
	audit_free(a);
}

void td_audit_close(struct td_audit *a)
{
	struct timespec until;
	if (!a)
		return;
	begin_end(a);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += END_S;
	if (pthread_timedjoin_np(a->thread, NULL, &until) != 0) {
		td_error("audit", NULL, "%s could not be written to its end: the disk does not answer", a->spec);
		if (!leave_to_worker(a))
			return;
		pthread_join(a->thread, NULL);
	}
	free_ended(a);
}

/* While others are served: its worker writes what waits and ends, and is not waited for. */
static void retire(struct td_audit *a)
{
	if (!a)
		return;
	begin_end(a);
	if (a->said)
		td_error("audit", NULL, "%s is no longer the audit log and could not be written to its end", a->spec);
	if (!leave_to_worker(a))
		return;
	pthread_join(a->thread, NULL);
	free_ended(a);
}

int td_audit_reload(struct td_audit **a, struct td_loop *l, const char *role, const char *spec, char *why, size_t cap)
{
	if (*a && spec && strcmp((*a)->spec, spec) == 0) {
		pthread_mutex_lock(&(*a)->mu);
		(*a)->reopen = true;
		pthread_cond_signal(&(*a)->cond);
		pthread_mutex_unlock(&(*a)->mu);
		return 0;
	}
	struct td_audit *next = spec ? open_audit(l, role, spec, false, why, cap) : NULL;
	if (spec && !next)
		return -1;
	retire(*a);
	*a = next;
	return 0;
}

uint64_t td_audit_dropped(const struct td_audit *a)
{
	return a ? a->lost : 0;
}

bool td_audit_begin(struct td_audit *a, struct td_audit_line *l, const char *event)
{
	if (a)
		begin_line(a, l, event);
	return a != NULL;
}

void td_audit_end(struct td_audit_line *l)
{
	struct td_audit *a = l->a;
	tnl_jw_end_obj(&l->w);
	tnl_buf_putc(&l->b, '\n');
	pthread_mutex_lock(&a->mu);
	if (a->untold && RING - a->used > 2 * LINE_MAX_BYTES && tell_dropped(a))
		a->untold = 0;
	if (l->b.failed || a->untold || !put_ring(a, tnl_buf_data(&l->b), tnl_buf_len(&l->b))) {
		a->lost++;
		a->untold++;
	}
	pthread_cond_signal(&a->cond);
	pthread_mutex_unlock(&a->mu);
	tnl_buf_fini(&l->b);
}
