# The program inserts notifications with ActiveRecord. The test puts code of sql/README.md in place of the comment
# README.
require "active_record"

ActiveRecord::Base.establish_connection(adapter: "postgresql")

class ApplicationRecord < ActiveRecord::Base
  self.abstract_class = true
end

# README

def want(got, expected)
  raise "got #{got.inspect}, want #{expected.inspect}" if got != expected
end

# refused runs a block, and raises an error unless PostgreSQL refuses the empty recipient in it.
def refused
  error = begin
    yield
    nil
  rescue ActiveRecord::StatementInvalid => e
    e
  end
  raise "an empty recipient: got #{error.inspect}, want the constraint recipient_is_1_to_256_bytes" unless error&.message&.include?("recipient_is_1_to_256_bytes")
end

def insert(recipient, data)
  Notification.create!(recipient: recipient, data: data)
end

# A transaction that fails inserts nothing, and the app sees the error that made it fail.
def rollback
  own = KeyError.new("an error of the app")
  begin
    Notification.transaction do
      insert("rolled back", {})
      raise own
    end
  rescue StandardError => e
    want(e, own)
  end
  refused do
    Notification.transaction do
      insert("rolled back", {})
      insert("", {})
    end
  end
end

# An error in a savepoint undoes the work since the savepoint, and the transaction can continue.
def savepoint
  Notification.transaction do
    insert("kept", { n: 1 })
    refused do
      Notification.transaction(requires_new: true) do
        insert("undone", {})
        insert("", {})
      end
    end
    Notification.transaction(requires_new: true) { insert("kept", { n: 2 }) }
    insert("kept", { n: 3 })
  end
end

def find(recipient)
  Notification.where(recipient: recipient).order(:id).map { |n| [n.event, n.data] }
end

insert("*", { to: "everyone" })
Notification.insert_all!([1, 2, 3].map { |n| { recipient: "many", data: { n: n } } })
puts "key #{insert("key", [1, "two", nil]).id}"
rollback
savepoint
# A role with the rights of a sender cannot read rows.
if ENV["ROLE"] == "app"
  want(find("alice"), [["notify", { "msg" => "hi" }]])
  want(find("many"), [1, 2, 3].map { |n| ["message", { "n" => n }] })
  want(find("key"), [["message", [1, "two", nil]]])
  want(find("rolled back"), [])
  last = Notification.last
  want([Notification.find(last.id), last.recipient, last.created_at.class], [last, "kept", Time])
end
