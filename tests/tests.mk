# Tests.  tests/unit/test_*.c: one cmocka program each against the library;
# tests/daemon/test_*.c: the same against the daemon's parts; the rest are scripts.
UNIT := $(patsubst tests/unit/%.c,%,$(sort $(wildcard tests/unit/test_*.c)))
UNIT_BIN := $(UNIT:%=$(BUILD)/tests/unit/%)
DUNIT := $(patsubst tests/daemon/%.c,%,$(sort $(wildcard tests/daemon/test_*.c)))
DUNIT_BIN := $(DUNIT:%=$(BUILD)/tests/daemon/%)

$(BUILD)/tests/unit/%: $(BUILD)/tests/unit/%.o $(LIB)
	$(CC) $(ALL_LDFLAGS) -o $@ $< $(LIB) $(LIB_LIBS) -lcmocka -lm
$(BUILD)/tests/daemon/%: $(BUILD)/tests/daemon/%.o $(TD_PARTS) $(LIB)
	$(CC) $(ALL_LDFLAGS) -o $@ $< $(TD_PARTS) $(LIB) $(LIBS) -lcmocka

unit: $(UNIT_BIN) $(DUNIT_BIN)
	@sh tests/run-unit.sh $(UNIT_BIN) $(DUNIT_BIN)

-include $(UNIT_BIN:=.d) $(DUNIT_BIN:=.d)
.PHONY: unit
.SECONDARY:
